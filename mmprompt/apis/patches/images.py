"""Which images patches are made of, and the keys under which a store holds them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmprompt.apis.images import PICTURES
from mmprompt.apis.prepare.class_prior import labelled_images
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.datasets.checks import build_dataset

SPLITS = ('train', 'val', 'test')
#: What datasets of MMSegmentation and MMDetection call the folder of their images.
_FOLDERS = ('img_path', 'img')


@dataclass(frozen=True)
class Picture:
    """An image file and its key: the path relative to the folder of images, with '/'."""

    key: str
    path: Path


def images_of_config(cfg: Config, split: str) -> list[Picture]:
    """The images of one split of a config, each once, ordered by key.

    Wrappers are passed through; a `FewShotDataset` gives the images that it chose, a concatenation
    those of all parts.

    Raises:
        UserError: the config has no such split, or its dataset cannot be used or lists no images.
    """
    node = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    if not isinstance(node, dict):
        have = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
        raise UserError(
            f'{cfg.filename}: expected {split}_dataloader.dataset, whose images are wanted, found '
            f'{node!r}. Splits of this config: {", ".join(have) or "none"}; choose by --split.'
        )
    init_default_scope(cfg.get('default_scope') or 'mmprompt')
    found = [(path, folder) for path, folder in _listed(build_dataset(node), str(cfg.filename))]
    return _keyed(found)


def images_of_folder(folder: str | os.PathLike) -> list[Picture]:
    """The images below a folder, ordered by key.

    Raises:
        UserError: there are none.
    """
    root = Path(folder).expanduser()
    found = sorted(
        path
        for path in (root.rglob('*') if root.is_dir() else ())
        if path.suffix.lower() in PICTURES and not path.name.startswith('.') and path.is_file()
    )
    if not found:
        what = 'none' if root.is_dir() else 'no such folder'
        raise UserError(
            f'{folder}: expected a folder of images ({", ".join(PICTURES)}), found {what}. Correct '
            f'--images.'
        )
    return _keyed((path, root) for path in found)


def forget_changed(images: Sequence[Any], writer: PatchStoreWriter, alone: bool = True) -> int:
    """Take the patches of images that are other files now out of a store; returns how many.

    Args:
        images: with `key` and `path`. Those of which the store knows no digest are left.
        writer: of the store. A finished one is reopened if there are any.
        alone: whether no other process does the same to this store.

    Raises:
        UserError: all of them are others: they are those of another split or data set; or a
            finished store would have to be reopened by several processes.
    """
    changed = _changed(images, writer)
    if changed and writer.finished:
        if not alone:
            raise UserError(
                f'{writer.path}: expected patches of these images, found that {len(changed)} of '
                f'them are other files now, as {changed[0]}. Run the command once in one process, '
                f'without torchrun and --shard: it makes their patches anew.'
            )
        writer.reopen()
        changed = _changed(images, writer)  # a process that was killed may have made some anew
    writer.forget(changed)
    return len(changed)


def _changed(images: Sequence[Any], writer: PatchStoreWriter) -> list[str]:
    known, changed = 0, []
    for image in images:
        digest = writer.digest(image.key)
        if digest is None:
            continue
        try:
            same = image_digest(image.path) == digest
        except OSError:
            continue  # its patches are there, and it is not needed
        known += 1
        if not same:
            changed.append(image.key)
    if changed and len(changed) == known:
        path = writer.path if writer.finished else writer.part
        raise UserError(
            f'{path}: expected patches of these images, found those of others under the same '
            f'names, for all {known} of them, as {changed[0]}. If it is the store of another split '
            f'or data set, name another --out; if all images were made anew, delete it.'
        )
    return changed


def _listed(dataset: Any, source: str) -> Iterator[tuple[Path, Path | None]]:
    """(image, folder of images) behind wrappers."""
    for leaf, i in labelled_images(dataset):
        prefix = getattr(leaf, 'data_prefix', None) or {}
        folder = next((prefix[name] for name in _FOLDERS if prefix.get(name)), None)
        info = leaf.get_data_info(i) if hasattr(leaf, 'get_data_info') else {}
        if not info.get('img_path'):
            raise UserError(
                f'{source}: expected a dataset whose get_data_info gives img_path, as those of '
                f'MMSegmentation and MMDetection do, found {type(leaf).__name__}. Give the folder '
                f'of its images by --images.'
            )
        yield Path(info['img_path']), None if folder is None else Path(folder)


def _keyed(found: Iterable[tuple[Path, Path | None]]) -> list[Picture]:
    """Give keys: relative to the folder; to what all folders share if keys would be equal."""
    folders: dict[Path, Path] = {}
    for path, folder in found:
        path = Path(os.path.abspath(path))
        root = path.parent if folder is None else Path(os.path.abspath(folder))
        folders.setdefault(path, root if path.is_relative_to(root) else path.parent)
    keys = {path: path.relative_to(root).as_posix() for path, root in folders.items()}
    if len(set(keys.values())) < len(keys):
        common = Path(os.path.commonpath([str(root) for root in folders.values()]))
        keys = {path: path.relative_to(common).as_posix() for path in folders}
    return sorted((Picture(key, path) for path, key in keys.items()), key=lambda p: p.key)
