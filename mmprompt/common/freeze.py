"""Freezing: no gradient, no running statistics, no second initialisation."""

from collections.abc import Collection

from torch import nn

_MARK = '_mmprompt_frozen'
# Names of frozen tensors on the module that owns them: a copy of a parameter has no attributes.
_TENSORS = '_mmprompt_frozen_tensors'


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


def freeze_except(module: nn.Module, trained: Collection[str]) -> nn.Module:
    """Freeze every direct part of ``module`` but those named.

    A submodule becomes a frozen root by `freeze`; a parameter or buffer of the module's own becomes
    one by its name. The module itself follows its parent between training and evaluation.

    Args:
        module: what is tuned in part.
        trained: names of its submodules, parameters and buffers that stay as they are.

    Returns:
        The same module.

    Raises:
        ValueError: a name that the module does not have.
    """
    children, parameters = dict(module.named_children()), dict(module._parameters)
    tensors = [*parameters, *module._buffers]
    unknown = sorted(set(trained) - {*children, *tensors})
    if unknown:
        raise ValueError(f'{type(module).__name__} has no part {unknown[0]!r} to train.')
    for name, child in children.items():
        if name not in trained:
            freeze(child)
    frozen = [name for name in tensors if name not in trained]
    for name in frozen:
        if parameters.get(name) is not None:
            parameters[name].requires_grad_(False)
    setattr(module, _TENSORS, tuple(frozen))
    return module


def is_frozen(module: nn.Module) -> bool:
    """Tell whether `freeze` was called on this very module."""
    return getattr(module, _MARK, False)


def frozen_roots(model: nn.Module) -> list[str]:
    """Return the dotted names of what is frozen in ``model``, in module order.

    The outermost frozen modules, and tensors frozen one by one by `freeze_except`.
    """
    roots: list[str] = []
    for name, module in model.named_modules():
        if any(root == '' or name.startswith(f'{root}.') for root in roots):
            continue
        if is_frozen(module):
            roots.append(name)
        else:
            prefix = f'{name}.' if name else ''
            roots += [prefix + tensor for tensor in getattr(module, _TENSORS, ())]
    return roots


def under_roots(key: str, roots: list[str]) -> bool:
    """Tell whether a state-dict key belongs to one of ``roots`` (an empty root is the model)."""
    return any(root in ('', key) or key.startswith(f'{root}.') for root in roots)


class _StayInEval:
    """Stands in for ``module.train``; a plain object, so that deepcopy and pickle follow it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module
