"""Pretrained weights of a wrapped backbone: read by the backbone's own way, and checked."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from mmprompt.common.checkpoint import install_strict_loader
from mmprompt.common.errors import UserError


def without_pretrained(config: dict) -> dict:
    """A copy of a backbone's config that asks for no pretrained weights."""
    config = copy.deepcopy(dict(config))
    if checkpoint_of(config.get('init_cfg')) is not None:
        del config['init_cfg']
    for key, nothing in (('pretrained', False), ('checkpoint_path', '')):
        if config.get(key):
            config[key] = nothing
    return config


def checkpoint_of(init_cfg: Any) -> str | None:
    """The file or address that an ``init_cfg`` names, if it does."""
    for one in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(one, dict) and one.get('checkpoint'):
            return str(one['checkpoint'])
    return None


def load_pretrained(backbone: nn.Module, must_be_whole: bool) -> None:
    """Let a backbone initialise itself, and see that nothing was left at random.

    mmengine loads what fits and goes on. Here a parameter that neither changed nor is named in the
    file is an error. Backbones that resize position embeddings or rename keys do so as ever.

    Args:
        backbone: frozen or not.
        must_be_whole: False for training from scratch.

    Raises:
        UserError: the file is missing, cannot be had or lacks parameters.
    """
    if not hasattr(backbone, 'init_weights'):
        return
    checkpoint = checkpoint_of(getattr(backbone, 'init_cfg', None))
    already = checkpoint is None and getattr(backbone, 'timm_model', None) is not None
    if checkpoint is None and must_be_whole and not already:
        print_log(
            f'SPMBackbone: {type(backbone).__name__} names no pretrained weights (init_cfg), so it '
            f'begins at random unless a checkpoint is loaded later.',
            logger='current',
            level=logging.WARNING,
        )
    install_strict_loader()
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    _initialise(backbone, checkpoint)
    if checkpoint is None:
        return
    same = [n for n, p in backbone.named_parameters() if torch.equal(before[n], p.detach())]
    if same:
        _check_named(same, len(before), backbone, checkpoint)


def _initialise(backbone: nn.Module, checkpoint: str | None) -> None:
    # What is frozen counts as initialised, so that nobody does it again.
    marks = {m: m._is_init for m in backbone.modules() if hasattr(m, '_is_init')}
    timm_has_loaded = checkpoint is None and hasattr(backbone, 'timm_model')
    try:
        if not timm_has_loaded:
            for module in marks:
                module._is_init = False
        with _few_words():
            backbone.init_weights()
    except (UserError, OSError, RuntimeError, ValueError, KeyError) as error:
        if checkpoint is None or isinstance(error, UserError):
            raise
        raise UserError(
            f'{checkpoint}: expected pretrained weights of {type(backbone).__name__}, found none '
            f'that can be read ({type(error).__name__}: {error}). Download the file by hand and '
            f'give its path: --cfg-options model.backbone.backbone.init_cfg.checkpoint=PATH.'
        ) from error
    finally:
        for module in marks:
            module._is_init = True


@contextmanager
def _few_words() -> Iterator[None]:
    """Keep mmengine from telling how each parameter began."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_named(names: list[str], total: int, backbone: nn.Module, checkpoint: str) -> None:
    state = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    for key in ('state_dict', 'model'):
        state = state.get(key, state)
    missing = [n for n in names if not any(k == n or k.endswith('.' + n) for k in state)]
    if missing:
        raise UserError(
            f'{os.fspath(checkpoint)}: expected the {total} parameters of '
            f'{type(backbone).__name__}, found a file without {len(missing)} of them, '
            f'{", ".join(missing[:3])} among them. Give weights of this backbone (or the prefix of '
            f'its names in the file: init_cfg.prefix).'
        )
