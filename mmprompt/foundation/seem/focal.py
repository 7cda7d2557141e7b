"""FocalNet: convolutional context aggregation ("focal modulation") in four stages.

Architecture facts: Yang et al., "Focal Modulation Networks", and the two variants that SEEM uses.
The two block classes are different networks and share only the modulation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.foundation.seem.layers import DropPath, Linear, linear
from mmprompt.registry import MODELS


class FocalModulation(nn.Module):
    """y = proj(q * h(sum_l gate_l * context_l)); contexts grow by depthwise convolutions.

    Args:
        dim: channels C.
        levels: number L of depthwise convolutions; one global mean comes on top.
        window: kernel of the first; each next one is two pixels larger.
    """

    def __init__(self, dim: int, levels: int, window: int) -> None:
        super().__init__()
        self.dim = dim
        self.levels = levels
        self.f = Linear(dim, 2 * dim + levels + 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = Linear(dim, dim)
        kernels = [window + 2 * level for level in range(levels)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False), nn.GELU())
            for k in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        # One product each: a slice of a common result would be copied by the first convolution.
        query = self._linear_part(x, 0, self.dim)
        context = self._linear_part(x, self.dim, 2 * self.dim)
        gates = self._linear_part(x, 2 * self.dim, 2 * self.dim + self.levels + 1)
        gates = gates / (self.levels + 1)
        context = context.permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        gates = gates.permute(0, 3, 1, 2)  # (B, L+1, H, W)
        total = None
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gate = gates[:, level : level + 1]
            total = context * gate if total is None else torch.addcmul(total, context, gate)
        everywhere = F.gelu(context.mean((2, 3), keepdim=True))  # (B, C, 1, 1)
        total = torch.addcmul(total, everywhere, gates[:, self.levels :])
        total = total.permute(0, 2, 3, 1)  # (B, H, W, C)
        total = linear(total, self.h.weight.flatten(1), self.h.bias)
        return self.proj(query * total)

    def _linear_part(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Channels `start` to `stop` of `f(x)`."""
        return linear(x, self.f.weight[start:stop], self.f.bias[start:stop])


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class _FocalBlock(nn.Module):
    """What both blocks own; the order of their steps differs.

    Args:
        dim: channels.
        levels: focal levels.
        window: first focal kernel.
        mlp_ratio: hidden width of the MLP over `dim`.
        drop_path: probability to drop a residual branch while training.
        layer_scale: start value of the per-channel residual gains.
    """

    def __init__(
        self,
        dim: int,
        levels: int,
        window: int,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float,
    ) -> None:
        super().__init__()
        self.modulation = FocalModulation(dim, levels, window)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.gamma_1 = nn.Parameter(self.norm1.weight.new_full((dim,), layer_scale))
        self.gamma_2 = nn.Parameter(self.norm1.weight.new_full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def _join(self, x: Tensor, gamma: Tensor, branch: Tensor) -> Tensor:
        """x + gamma * branch, with the branch dropped now and then while training."""
        return torch.addcmul(x, gamma, self.drop_path(branch))


class FocalDWBlock(_FocalBlock):
    """`focal_dw`: depthwise 3x3 residuals, LayerNorm over each sum."""

    def __init__(self, dim: int, *args, **kwargs) -> None:
        super().__init__(dim, *args, **kwargs)
        self.dw1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.dw2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.dw1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self.norm1(self._join(x, self.gamma_1, self.modulation(x)))
        x = x + self.dw2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm2(self._join(x, self.gamma_2, self.mlp(x)))


class FocalPostNormBlock(_FocalBlock):
    """`focal`: residual post-norm, LayerNorm inside each branch, no depthwise residuals."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self._join(x, self.gamma_1, self.norm1(self.modulation(x)))
        return self._join(x, self.gamma_2, self.norm2(self.mlp(x)))


BLOCKS = {'dw': FocalDWBlock, 'postnorm': FocalPostNormBlock}


class PatchEmbed(nn.Module):
    """Strided convolution and LayerNorm; the input is zero-padded to a multiple of the stride."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H/s), ceil(W/s), D), channels last."""
        bottom, right = -x.shape[2] % self.stride, -x.shape[3] % self.stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class FocalStage(nn.Module):
    """Blocks at one stride, then the downsampler to the next one (None after the last)."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), before the downsampler."""
        return self.blocks(x)


@MODELS.register_module()
class FocalNet(BaseModule):
    """FocalNet backbone.

    Args:
        embed_dim: channels of stage 0; each stage doubles them.
        depths: blocks per stage.
        focal_levels: depthwise context levels per stage.
        focal_windows: first focal kernel per stage.
        mlp_ratio: hidden width of the MLPs over the channels.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        block: 'dw' (Focal-T of SEEM) or 'postnorm' (Focal-L).
        stem_padding: padding of the 7x7 stride-4 stem; None means 3 for 'dw', 2 for 'postnorm'.
        layer_scale: start of the residual gains, 1e-4 as published.
        init_cfg: MMEngine initialisation config.

    Attributes:
        out_channels: channels of the four outputs.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        focal_levels: Sequence[int] = (3, 3, 3, 3),
        focal_windows: Sequence[int] = (3, 3, 3, 3),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.3,
        block: str = 'dw',
        stem_padding: int | None = None,
        layer_scale: float = 1e-4,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if block not in BLOCKS:
            raise ValueError(f'FocalNet: block must be one of {sorted(BLOCKS)}, got {block!r}')
        if stem_padding is None:
            stem_padding = 3 if block == 'dw' else 2
        dims = [embed_dim << i for i in range(len(depths))]
        self.out_channels = dims
        self.patch_embed = PatchEmbed(3, dims[0], 7, 4, stem_padding)
        last = max(sum(depths) - 1, 1)
        self.layers = nn.ModuleList()
        done = 0
        for i, depth in enumerate(depths):
            blocks = [
                BLOCKS[block](
                    dims[i],
                    focal_levels[i],
                    focal_windows[i],
                    mlp_ratio,
                    drop_path_rate * (done + j) / last,
                    layer_scale,
                )
                for j in range(depth)
            ]
            done += depth
            down = PatchEmbed(dims[i], dims[i + 1], 3, 2, 1) if i + 1 < len(depths) else None
            self.layers.append(FocalStage(blocks, down))
        for i, dim in enumerate(dims):
            self.add_module(f'norm{i}', nn.LayerNorm(dim))
        self._reset()

    def _reset(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalised image (B, 3, H, W) -> maps at strides 4, 8, 16, 32, each (B, C_i, h, w).

        Sizes round up: h = ceil(H / 4), then ceil(h / 2) per stage.
        """
        x = self.patch_embed(x)
        outs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            outs.append(getattr(self, f'norm{i}')(x).permute(0, 3, 1, 2))
            if layer.downsample is not None:
                x = layer.downsample(x.permute(0, 3, 1, 2))
        return tuple(outs)
