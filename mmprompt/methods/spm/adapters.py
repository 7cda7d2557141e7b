"""VPT, AdaptFormer and LoRA on a frozen Vision Transformer: what SPM is compared with.

All three are trained parts of their own that act through hooks on the transformer units of a
backbone, so that the backbone keeps its class, its parameter names and its bytes. A unit is any
module with a child `attn` and a child `ffn` or `mlp`: those of MMSegmentation's VisionTransformer,
SwinTransformer and BEiT, and timm's through `TIMMBackbone`.

Trained parameters with the default sizes, in closed form for L units of width d, and for ViT-L
(L = 24, d = 1024):

===================  ==========================  =========
method               parameters                  ViT-L
===================  ==========================  =========
VPT, shallow         T d            (T = 50)     51,200
VPT, deep            L T d          (T = 50)     1,228,800
AdaptFormer          L (2 d c + c + d)  (c = 64) 3,171,840
LoRA, query + value  L 4 r d        (r = 8)      786,432
===================  ==========================  =========

Why not the library `peft` for LoRA: it puts modules of its own in the place of the backbone's,
which renames its keys, it knows one product for a packed projection and none for query and value
apart, and it needs transformers and accelerate. The tests compare with it where it is installed.

Notation: B images, N tokens, T prompt tokens, d width, c bottleneck, r rank, L units.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.methods.spm.stages import known_prefix
from mmprompt.methods.spm.units import (
    PROJECTIONS,
    Weight,
    check_free_length,
    mlp_of,
    parameters_of,
    projections,
    transformer_units,
    width_of,
)
from mmprompt.registry import MODELS


def build_adapters(backbone: nn.Module, config: dict) -> nn.ModuleList:
    """Build the trained parts of a method and hook them onto a backbone.

    The hooks hold the parts, not closures, so `copy.deepcopy` and `pickle` of a module that owns
    both lead to hooks that refer to the copied parts. Each call adds another set of hooks.

    Args:
        backbone: changed in nothing but its hooks; freezing it is left to the caller.
        config: `type` (`VPT`, `AdaptFormer`, `LoRA`, or a registered class whose first argument is
            the backbone) and its arguments.

    Returns:
        The trained parts, by unit.

    Raises:
        UserError: the backbone has no units that the method can act on, or an argument is out of
            its range.
    """
    return MODELS.build(config, default_args=dict(backbone=backbone))


@MODELS.register_module()
class VPT(nn.ModuleList):
    """Visual Prompt Tuning: learned tokens beside those of the image (Jia et al., 2203.12119).

    Deep: [x, _, E]_i = unit_i([x, P, E]_(i-1)) with new tokens P before every unit. Shallow: tokens
    before the first unit alone, which run on through all of them. They stand behind the class token
    x and are taken out again behind each unit, so that the rest of the backbone meets the sequences
    that it knows; in shallow mode they wait outside until the next unit. They start uniform within
    sqrt(6 / (n + d)), n the inputs of one patch, as in the authors' code.

    Args:
        backbone: a plain ViT; its units map (B, N, d) to (B, N, d).
        num_tokens: T.
        deep: new tokens before every unit.
        dropout: probability with which entries of the tokens are dropped in training.

    Raises:
        UserError: units that cannot take more tokens than the picture gives (windows, relative or
            rotary positions, sizes as arguments), or `num_tokens` below 1.
    """

    def __init__(
        self, backbone: nn.Module, num_tokens: int = 50, deep: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_count('VPT', 'num_tokens', num_tokens)
        units = transformer_units(backbone, 'VPT')
        for unit in units:
            check_free_length(unit, backbone)
        widths = {width_of(unit, 'VPT') for unit in units}
        if len(widths) > 1:
            raise UserError(
                f'VPT: expected units of one width, found {sorted(widths)} in '
                f'{type(backbone).__name__}. Use AdaptFormer or LoRA there.'
            )
        width = widths.pop()
        patch = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
        inputs = patch.weight[0].numel() if patch is not None else width
        bound = math.sqrt(6 / (inputs + width))
        for _ in units if deep else units[:1]:
            self.append(PromptTokens(num_tokens, width, bound, dropout))
        position = (known_prefix(backbone) or (0,))[0]
        waiting = _Waiting()
        for index, unit in enumerate(units):
            splice = _Splice(
                self[index] if deep or index == 0 else None,
                slice(position, position + num_tokens),
                waiting if not deep and index + 1 < len(units) else None,
                waiting if not deep else None,
            )
            unit.register_forward_pre_hook(splice.insert)
            unit.register_forward_hook(splice.remove)


class PromptTokens(nn.Module):
    """T learned tokens; `forward(batch)` gives them to every image, (batch, T, d)."""

    def __init__(self, num_tokens: int, width: int, bound: float, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(num_tokens, width))
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.tokens, -bound, bound)

    def forward(self, batch: int) -> Tensor:
        return self.dropout(self.tokens.expand(batch, -1, -1))


class _Waiting:
    """Tokens of shallow VPT between two units; a copy or pickle starts without any."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None

    def __getstate__(self) -> dict:
        return {'tokens': None}

    def take(self) -> Tensor:
        tokens, self.tokens = self.tokens, None
        if tokens is None:
            raise UserError(
                'VPT: with deep=False every unit takes over the tokens of the one before it, but '
                'a unit was run without that one. Run the whole backbone, without activation '
                'checkpoints around units, or set deep=True.'
            )
        return tokens


@dataclass
class _Splice:
    """The two hooks of one unit under VPT.

    Attributes:
        own: tokens of this unit; without them the waiting ones go in.
        place: where tokens stand in the sequence.
        keep: where they wait behind the unit; None throws them away.
        waiting: where they have waited before it.
    """

    own: PromptTokens | None
    place: slice
    keep: _Waiting | None
    waiting: _Waiting | None

    def insert(self, unit: nn.Module, args: tuple) -> tuple:
        """(B, N, d) -> (B, N + T, d)."""
        x, *others = args
        if x.dim() != 3:
            raise UserError(
                f'VPT: expected {type(unit).__name__} to be given tokens (B, N, d), found a '
                f'tensor of {x.dim()} dimensions. Use AdaptFormer or LoRA there.'
            )
        tokens = self.own(x.shape[0]) if self.own is not None else self.waiting.take()
        at = self.place.start
        return (torch.cat([x[:, :at], tokens.to(x.dtype), x[:, at:]], dim=1), *others)

    def remove(self, unit: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """(B, N + T, d) -> (B, N, d)."""
        if self.keep is not None:
            self.keep.tokens = output[:, self.place]
        return torch.cat([output[:, : self.place.start], output[:, self.place.stop :]], dim=1)


@MODELS.register_module()
class AdaptFormer(nn.ModuleList):
    """AdaptFormer: a bottleneck parallel to the MLP of every unit (Chen et al., 2205.13535).

    x_l = MLP(LN(x')) + s up(ReLU(down(LN(x')))) + x', added to what the MLP module returns. `up`
    starts at zero, so step 0 is the frozen backbone. Where a unit scales its MLP branch behind the
    module (LayerScale of timm and BEiT) the bottleneck is scaled with it.

    Args:
        backbone: one with transformer units of any layout with the channels last.
        channels: c.
        scale: s.
        dropout: of the bottleneck's c channels, in training; the text has none, the authors' code
            0.1.

    Raises:
        UserError: no units, an MLP that is not made of linear layers, or `channels` below 1.
    """

    def __init__(
        self, backbone: nn.Module, channels: int = 64, scale: float = 0.1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_count('AdaptFormer', 'channels', channels)
        for unit in transformer_units(backbone, 'AdaptFormer'):
            self.append(Bottleneck(width_of(unit, 'AdaptFormer'), channels, scale, dropout))
            mlp_of(unit).register_forward_hook(self[-1].add)


class Bottleneck(nn.Module):
    """`forward`: (..., d) -> s up(ReLU(down(x))), (..., d)."""

    def __init__(self, width: int, channels: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(width, channels)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(channels, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(self.dropout(self.down(x).relu()))

    def add(self, mlp: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """Forward hook of an MLP."""
        return output + self(args[0])


@MODELS.register_module()
class LoRA(nn.ModuleList):
    """LoRA: a low-rank change of the projections of attention (Hu et al., 2106.09685).

    W + (alpha / r) B A with A (r, d) Kaiming-uniform as in the authors' code and B (d', r) at zero,
    so that step 0 is the frozen backbone: bit for bit without gradients, within rounding with them
    (torch may multiply a weight that needs one by another kernel). While an attention module runs,
    the sum stands in the place of its weight; afterwards the weight is back, also after an
    exception. So packed and separate projections and those that read the weight without calling its
    layer are all reached, at the price of one gradient of a projection's size at a time. Not for
    calls of one model from several threads at once.

    Args:
        backbone: one whose units hold `nn.MultiheadAttention`, a linear layer `qkv` or linear
            layers `q_proj`, `k_proj` and `v_proj`.
        rank: r.
        alpha: numerator of the scale.
        targets: which of query, key and value are changed.

    Raises:
        UserError: no units, projections of other names, `rank` below 1, or unknown targets.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rank: int = 8,
        alpha: float = 16,
        targets: Sequence[str] = ('query', 'value'),
    ) -> None:
        super().__init__()
        _check_count('LoRA', 'rank', rank)
        if not targets or set(targets) - {*PROJECTIONS}:
            raise UserError(
                f'LoRA: expected targets among {list(PROJECTIONS)}, found {list(targets)}.'
            )
        for unit in transformer_units(backbone, 'LoRA'):
            attention, weights = projections(unit.attn)
            self.append(WeightChange(attention, weights, rank, alpha / rank, targets))
            attention.register_forward_pre_hook(self[-1].enter)
            attention.register_forward_hook(self[-1].leave, always_call=True)


class LowRank(nn.Module):
    """`forward()`: the product (alpha / r) B A, (outputs, inputs)."""

    def __init__(self, outputs: int, inputs: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self) -> Tensor:
        return (self.scale * self.b) @ self.a


class WeightChange(nn.ModuleDict):
    """The low-rank products of one attention module, by target, and the hooks that apply them."""

    def __init__(
        self,
        attention: nn.Module,
        weights: Sequence[Weight],
        rank: int,
        scale: float,
        targets: Sequence[str],
    ) -> None:
        super().__init__()
        self._weights = [w for w in weights if set(w.blocks) & set(targets)]
        # One entry per running call of the attention module: what to put back.
        self._running: list[list[tuple[dict, str, Tensor]]] = []
        for weight in self._weights:
            rows, inputs = parameters_of(attention, weight)[weight.name].shape
            for target in weight.blocks:
                if target in targets:
                    self[target] = LowRank(rows // len(weight.blocks), inputs, rank, scale)

    def enter(self, attention: nn.Module, args: tuple) -> None:
        """Forward pre-hook: put the changed weights in."""
        undo: list[tuple[dict, str, Tensor]] = []
        if not self._running:  # a call inside a call finds them there
            for weight in self._weights:
                parameters = parameters_of(attention, weight)
                frozen = parameters[weight.name]
                undo.append((parameters, weight.name, frozen))
                parameters[weight.name] = frozen + self._change(weight, frozen)
        self._running.append(undo)

    def leave(self, attention: nn.Module, args: tuple, output: Any) -> None:
        """Forward hook: put the frozen weights back."""
        for parameters, name, frozen in self._running.pop() if self._running else ():
            parameters[name] = frozen

    def _change(self, weight: Weight, frozen: Tensor) -> Tensor:
        rows = len(frozen) // len(weight.blocks)
        zero = frozen.new_zeros(rows, frozen.shape[1])
        parts = [self[t]().to(zero.dtype) if t in self else zero for t in weight.blocks]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _check_count(method: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise UserError(
            f'{method}: expected {name} to be a whole number of at least 1, found {value!r}.'
        )
