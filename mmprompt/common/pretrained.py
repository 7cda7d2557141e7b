"""Pretrained weights of a backbone: read by the backbone's own way, and checked."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmprompt.common.checkpoint import install_strict_loader
from mmprompt.common.errors import UserError

# Of these a backbone may have more than its weights do (Swin and ConvNeXt add one behind each level
# that they return): they start as the identity, nothing of them is random.
_PLAIN_NORMS = (nn.LayerNorm, nn.GroupNorm)


def without_pretrained(config: dict) -> dict:
    """A copy of a backbone's config that asks for no pretrained weights."""
    config = copy.deepcopy(dict(config))
    init_cfg = config.pop('init_cfg', None)
    kept = [one for one in _as_list(init_cfg) if checkpoint_of(one) is None]
    if kept:
        config['init_cfg'] = kept if isinstance(init_cfg, (list, tuple)) else kept[0]
    for key, nothing in (('pretrained', False), ('checkpoint_path', '')):
        if config.get(key):
            # MMSegmentation's old spelling takes a path or None, timm's True or False.
            config[key] = None if isinstance(config[key], str) and key == 'pretrained' else nothing
    return config


def checkpoint_of(init_cfg: Any) -> str | None:
    """The file or address that an ``init_cfg`` names, if it does."""
    for one in _as_list(init_cfg):
        if isinstance(one, dict) and one.get('checkpoint'):
            return str(one['checkpoint'])
    return None


def load_pretrained(
    backbone: nn.Module, must_be_whole: bool, wanted: bool = True, key: str = 'model.backbone'
) -> None:
    """Let a backbone initialise itself, and see that nothing that stays was left at random.

    mmengine loads what fits and goes on. Here a parameter or running statistic that the file does
    not give, or gives in another shape, is an error; in a backbone that is to be trained it is a
    warning unless all of them are. Backbones that resize position embeddings or rename keys do so
    as ever.

    Args:
        backbone: frozen or not.
        must_be_whole: True for one that stays frozen.
        wanted: False for training from scratch, where no file is named.
        key: of the backbone in the config, for messages.

    Raises:
        UserError: the file is missing, cannot be had or does not fit.
    """
    if not hasattr(backbone, 'init_weights'):
        return
    checkpoint = checkpoint_of(getattr(backbone, 'init_cfg', None))
    if checkpoint is None and wanted:
        print_log(
            f'{key}: {type(backbone).__name__} names no pretrained weights (init_cfg), so it '
            f'begins at random unless a checkpoint is loaded later.',
            logger='current',
            level=logging.WARNING,
        )
    install_strict_loader()
    with _noting_what_is_given(backbone) as given:
        _initialise(backbone, checkpoint, key)
    if checkpoint is not None:
        _check_given(given, backbone, checkpoint, must_be_whole)


def _initialise(backbone: nn.Module, checkpoint: str | None, key: str) -> None:
    # What is frozen counts as initialised, so that nobody does it again.
    marked = [module for module in backbone.modules() if hasattr(module, '_is_init')]
    try:
        for module in marked:
            module._is_init = False
        with _few_words():
            backbone.init_weights()
    except (AssertionError, OSError, RuntimeError, ValueError, KeyError) as error:
        if checkpoint is None or isinstance(error, UserError):
            raise
        raise UserError(
            f'{checkpoint}: expected pretrained weights of {type(backbone).__name__}, found none '
            f'that can be read ({type(error).__name__}: {error}). Give another file, or correct '
            f'the prefix of its names: --cfg-options '
            f'{key}.init_cfg.checkpoint=PATH.'
        ) from error
    finally:
        for module in marked:
            module._is_init = True


@contextmanager
def _few_words() -> Iterator[None]:
    """Keep mmengine from telling how each parameter began."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _noting_what_is_given(backbone: nn.Module) -> Iterator[set[str]]:
    """Collect the names of the tensors for which a state dict has values of their shape.

    Looked at where each module takes its own, after all renaming and resizing.
    """
    given: set[str] = set()

    def note(place: str, tensors: dict[str, Tensor]) -> Any:
        def hook(state: dict, prefix: str, *_: Any) -> None:
            for name, tensor in tensors.items():
                if getattr(state.get(prefix + name), 'shape', None) == tensor.shape:
                    given.add(place + name)

        return hook

    handles = [
        module._register_load_state_dict_pre_hook(note(place, tensors))
        for place, module, tensors in _weights(backbone)
    ]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


def _weights(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, Tensor]]]:
    """Prefix, module, and its own parameters and running statistics by name."""
    for name, module in backbone.named_modules():
        tensors = dict(module.named_parameters(recurse=False))
        if isinstance(module, _NormBase) and module.track_running_stats:
            tensors |= dict(running_mean=module.running_mean, running_var=module.running_var)
        if tensors:
            yield f'{name}.' if name else '', module, tensors


def _check_given(
    given: set[str], backbone: nn.Module, checkpoint: str, must_be_whole: bool
) -> None:
    missing, plain, total = [], [], 0
    for place, module, tensors in _weights(backbone):
        absent = [place + name for name in tensors if place + name not in given]
        (plain if isinstance(module, _PLAIN_NORMS) else missing).extend(absent)
        total += len(tensors)
    if not missing + plain:
        return
    text = (
        f'{checkpoint}: expected the {total} weights of {type(backbone).__name__}, found a file '
        f'without {len(missing + plain)} of them, {", ".join((missing + plain)[:3])} among them, '
        f'or of other shapes.'
    )
    if not given or (missing and must_be_whole):
        raise UserError(
            f'{text} Give weights of this backbone (or the prefix of its names in the file: '
            f'init_cfg.prefix).'
        )
    print_log(f'{text} These begin as they were built.', logger='current', level=logging.WARNING)


def _as_list(value: Any) -> list:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]
