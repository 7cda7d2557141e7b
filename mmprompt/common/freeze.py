"""Freezing: no gradient, no running statistics, no second initialisation."""

from torch import nn

_MARK = '_mmprompt_frozen'


def freeze(module: nn.Module) -> nn.Module:
    """Freeze ``module`` for good and mark it as a frozen root.

    Its parameters get no gradient, it is in eval mode and stays there when a parent's ``train()``
    is called, and mmengine's ``init_weights`` passes it by, so that loaded weights survive it.

    Returns:
        The same module.
    """
    module.requires_grad_(False)
    module.eval()
    for part in module.modules():
        if hasattr(part, '_is_init'):
            part._is_init = True
    setattr(module, _MARK, True)
    # An attribute of the instance shadows the method, so this holds for classes with a train() of
    # their own (mmseg's ResNet has one); the type and the state dict stay as they were.
    module.train = _StayInEval(module)
    return module


def is_frozen(module: nn.Module) -> bool:
    """Tell whether `freeze` was called on this very module."""
    return getattr(module, _MARK, False)


def frozen_roots(model: nn.Module) -> list[str]:
    """Return the dotted names of the outermost frozen modules of ``model``, in module order."""
    roots: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f'{root}.') for root in roots)
        if is_frozen(module) and not inside:
            roots.append(name)
    return roots


def under_roots(key: str, roots: list[str]) -> bool:
    """Tell whether a state-dict key belongs to one of ``roots`` (an empty root is the model)."""
    return any(root == '' or key.startswith(f'{root}.') for root in roots)


class _StayInEval:
    """Stands in for ``module.train``; a plain object, so that deepcopy and pickle follow it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module
