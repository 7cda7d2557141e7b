"""How a run was trained, as plain values that its files of weights keep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size

from mmprompt.common.patch_store import PatchStore


def recipe_of(runner: Any) -> dict:
    """Return how the run was trained, in a few plain values."""
    cfg = runner.cfg
    optim = cfg.get('optim_wrapper') or {}
    loader = cfg.get('train_dataloader') or {}
    recipe = {
        'config': Path(cfg.filename).stem if cfg.filename else None,
        'iterations': runner.iter,
        'batch_size': _whole_batch(loader.get('batch_size')),
        'optimizer': _plain(optim.get('optimizer')),
        'schedule': _plain(cfg.get('param_scheduler')),
        'seed': runner.seed,
    }
    patches = patches_of(runner)
    if patches is not None:  # what makes patches of other images alike
        recipe['patches'] = patches
    manifest = _manifest_of(runner)
    if manifest is None:
        return recipe
    # What was drawn, from the manifest in use; its path would tell of the user's folders.
    few_shot = {
        'k': manifest.k,
        'seed': manifest.seed,
        'sampling': manifest.sampling,
        'num_images': len(manifest.images),
        'dataset': manifest.dataset.get('fingerprint'),
    }
    return recipe | {'few_shot': few_shot}


def _manifest_of(runner: Any) -> Any:
    """The manifest of the training dataset, whatever wraps it; None without few-shot."""
    return _of_dataset(runner, 'manifest')


def patches_of(runner: Any) -> dict | None:
    """Generator and settings of the patches that were trained on; None without patches."""
    steps = getattr(_of_dataset(runner, 'pipeline'), 'transforms', ())
    stores = (getattr(step, 'store', None) for step in steps)
    store = next((each for each in stores if isinstance(each, PatchStore)), None)
    if store is None:
        return None
    return {key: _plain(store.meta.get(key)) for key in ('generator', 'settings')}


def _of_dataset(runner: Any, name: str) -> Any:
    """An attribute of the training dataset, whatever wraps it; None if nothing has it."""
    # Not runner.train_loop: that property builds the loop.
    loader = getattr(runner._train_loop, 'dataloader', None)
    dataset = getattr(loader, 'dataset', None)
    while dataset is not None and getattr(dataset, name, None) is None:
        dataset = getattr(dataset, 'dataset', None) or next(iter(_parts(dataset)), None)
    return getattr(dataset, name, None)


def _parts(dataset: Any) -> Sequence[Any]:
    """Data sets that one is put together of."""
    return getattr(dataset, 'datasets', None) or ()


def _whole_batch(size: int | None) -> int | None:
    """Images of one step; the loader of each process has its share."""
    return None if size is None else size * get_world_size()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
