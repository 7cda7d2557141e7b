"""FPN whose coarsest map passes a small transformer encoder first (SEEM's pixel decoder)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.foundation.seem.features import SEEMFeatures
from mmprompt.foundation.seem.layers import Attention, Linear, sine_position
from mmprompt.registry import MODELS


class ConvGN(nn.Module):
    """Convolution without bias, GroupNorm, and a ReLU when asked."""

    def __init__(self, in_dim: int, dim: int, kernel: int, groups: int, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, dim)
        self.relu = relu
        nn.init.kaiming_uniform_(self.conv.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H, W)."""
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


class EncoderLayer(nn.Module):
    """Post-norm transformer layer; the position joins queries and keys only."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.linear1 = Linear(dim, ffn_dim)
        self.linear2 = Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        for module in (self.linear1, self.linear2, self.self_attn.out_proj):
            nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, L, D), (L, D) -> (B, L, D)."""
        where = x + position
        x = self.norm1(x + self.self_attn(where, where, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


@MODELS.register_module()
class TransformerFPN(BaseModule):
    """Pixel decoder: transformer on stride 32, then a top-down FPN to stride 4.

    Args:
        in_channels: channels of the four backbone maps, strides 4, 8, 16, 32.
        dim: channels of the multi-scale maps.
        mask_dim: channels of the mask features.
        num_layers: transformer layers on the stride-32 map.
        num_heads: their heads.
        ffn_dim: their hidden width.
        num_groups: groups of each GroupNorm.
        init_cfg: MMEngine initialisation config.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        dim: int = 512,
        mask_dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        num_groups: int = 32,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(in_channels) != 4:
            raise ValueError(f'TransformerFPN: in_channels needs 4 values, got {in_channels!r}')
        self.dim = dim
        self.input_proj = nn.Conv2d(in_channels[3], dim, 1)
        self.encoder = nn.ModuleList(
            EncoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers)
        )
        # Index 0, 1, 2 belongs to the backbone map of stride 4, 8, 16; layers[3] to stride 32.
        self.adapters = nn.ModuleList(
            ConvGN(channels, dim, 1, num_groups, relu=False) for channels in in_channels[:3]
        )
        self.layers = nn.ModuleList(ConvGN(dim, dim, 3, num_groups, relu=True) for _ in range(4))
        self.mask_features = nn.Conv2d(dim, mask_dim, 3, padding=1)
        for conv in (self.input_proj, self.mask_features):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def encode_coarse(self, coarse: Tensor) -> Tensor:
        """Transformer on the stride-32 map: (B, C, h, w) -> (B, D, h, w)."""
        x = self.input_proj(coarse)
        height, width = x.shape[2:]
        position = sine_position(height, width, self.dim, x)  # (h*w, D)
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        for layer in self.encoder:
            x = layer(x, position)
        return x.transpose(1, 2).unflatten(2, (height, width))

    def forward(self, maps: Sequence[Tensor]) -> SEEMFeatures:
        """Four maps, strides 4, 8, 16, 32, each (B, C_i, h_i, w_i) -> features."""
        x = self.layers[3](self.encode_coarse(maps[3]))
        multi_scale = [x]
        for i in (2, 1, 0):
            side = self.adapters[i](maps[i])
            x = self.layers[i](side + F.interpolate(x, size=side.shape[2:], mode='nearest'))
            if i > 0:
                multi_scale.append(x)
        return SEEMFeatures(multi_scale, self.mask_features(x))
