"""Measuring on other patches than the config names, or than the weights were trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmprompt.apis.inference.samcp_loading import training_patches
from mmprompt.apis.patches.source import differences
from mmprompt.apis.pipelines import steps_of
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStore


def use_patches(cfg: Config, store: str | Path) -> None:
    """Let the test data of a config read their patches from another store, in place.

    Raises:
        UserError: there is no such store, or the test pipeline reads no patches.
    """
    PatchStore(store).meta  # noqa: B018  (refused here, before anything is built)
    step = _loading(cfg)
    if step is None:
        raise UserError(
            f'--patches {store}: expected a config whose test pipeline has LoadPatches, found '
            f'none. Patches are for SAM-CP.'
        )
    step['store'] = str(store)


def other_patches(cfg: Config, recipe: Mapping[str, Any] | None) -> str | None:
    """Say in words how the patches of testing differ from those of training; None if they do not.

    Args:
        cfg: whose test data are measured on.
        recipe: of the file of weights, or of the entry ``mmprompt`` of a checkpoint; without
            `patches` in it the store that the config trains on is asked, if it is here.
    """
    step = _loading(cfg)
    trained = (recipe or {}).get('patches') or training_patches(cfg)
    if step is None or not trained:
        return None
    found = differences(trained, PatchStore(step['store']).meta)
    if not found:
        return None
    return f'patches: made otherwise than those of the training: {"; ".join(found)}'


def _loading(cfg: Config) -> dict | None:
    steps = steps_of(cfg.get('test_dataloader'))
    return next((s for s in steps if str(s['type']).split('.')[-1] == 'LoadPatches'), None)
