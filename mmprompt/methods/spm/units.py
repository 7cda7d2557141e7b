"""The units of a transformer: what adapters must know about a backbone of any library.

A unit is a module with a child `attn` and a child `ffn` or `mlp`.
"""

import inspect
from dataclasses import dataclass

from torch import nn

from mmprompt.common.errors import UserError

#: The projections of attention, in the order of their rows in a packed weight.
PROJECTIONS = ('query', 'key', 'value')


def transformer_units(backbone: nn.Module, method: str) -> list[nn.Module]:
    """Return the transformer units of a backbone, in the order of their registration.

    Raises:
        UserError: there are none; `method` is named in the message.
    """
    units = [module for module in backbone.modules() if mlp_of(module) and _child(module, 'attn')]
    if not units:
        raise UserError(
            f'{method}: expected a backbone of transformer units (modules with a child `attn` and '
            f'a child `ffn` or `mlp`), found {type(backbone).__name__}, which has none. Give a '
            f"Vision Transformer such as mmseg.VisionTransformer, or set tuning='spm' or 'head', "
            f'which fit every backbone.'
        )
    return units


@dataclass(frozen=True)
class Weight:
    """A projection's weight: parameter `name` of submodule `owner` ('' is the module itself).

    Its rows are equal blocks, one for each of `blocks`.
    """

    owner: str
    name: str
    blocks: tuple[str, ...]


def projections(attn: nn.Module) -> tuple[nn.Module, list[Weight]]:
    """Find the module that runs attention within `attn`, and the weights of its projections.

    Raises:
        UserError: the projections have other names or widths.
    """
    for module in attn.modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            return module, [Weight('', 'in_proj_weight', PROJECTIONS)]
        packed = _child(module, 'qkv')
        if isinstance(packed, nn.Linear) and packed.out_features % 3 == 0:
            return module, [Weight('qkv', 'weight', PROJECTIONS)]
        names = ('q_proj', 'k_proj', 'v_proj')
        if all(isinstance(_child(module, name), nn.Linear) for name in names):
            return module, [Weight(n, 'weight', (t,)) for n, t in zip(names, PROJECTIONS)]
    raise UserError(
        f'LoRA: expected attention with nn.MultiheadAttention of one width, a linear layer `qkv` '
        f'or linear layers `q_proj`, `k_proj` and `v_proj`, found {type(attn).__name__} with '
        f'{sorted(name for name, _ in attn.named_children())}. Use AdaptFormer there.'
    )


def parameters_of(attention: nn.Module, weight: Weight) -> dict:
    """The dict in which the module that owns a projection keeps its parameters."""
    return attention.get_submodule(weight.owner)._parameters


def _child(module: nn.Module, name: str) -> nn.Module | None:
    return module._modules.get(name)


def mlp_of(unit: nn.Module) -> nn.Module | None:
    """The MLP of a unit, by either of its usual names."""
    return _child(unit, 'ffn') or _child(unit, 'mlp')


def width_of(unit: nn.Module, method: str) -> int:
    """Channels that the MLP of a unit takes.

    Raises:
        UserError: it has no linear layer; `method` is named in the message.
    """
    linear = next((m for m in mlp_of(unit).modules() if isinstance(m, nn.Linear)), None)
    if linear is None:
        raise UserError(
            f'{method}: expected an MLP of linear layers in {type(unit).__name__}, found '
            f'{type(mlp_of(unit)).__name__} without one. Use LoRA there.'
        )
    return linear.in_features


def check_free_length(unit: nn.Module, backbone: nn.Module) -> None:
    """Refuse a unit that knows how many tokens there are.

    Raises:
        UserError: it has windows, relative or rotary positions, or takes sizes as arguments.
    """
    _, *others = inspect.signature(unit.forward).parameters.values()
    needed = [p.name for p in others if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    found = [f'argument `{name}`' for name in needed]
    found += [f'argument `{p.name}`' for p in others if p.name == 'rope']
    found += [f'`{n}`' for m in unit.modules() for n in vars(m) if n.startswith('window_size')]
    found += [f'`{n}`' for m in unit.modules() for n in m._parameters if 'relative_pos' in n]
    if found:
        raise UserError(
            f'VPT: expected units that take a sequence of any length, found '
            f'{type(unit).__name__} of {type(backbone).__name__} with {found[0]}, bound to the '
            f'tokens of the picture. Use AdaptFormer or LoRA there.'
        )
