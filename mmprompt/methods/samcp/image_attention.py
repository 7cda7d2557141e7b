"""Cross-attention to the image instead of its patches ("image-level" in Table 5).

Deformable attention (Zhu et al. 2021, with boxes as in DINO) without compiled operators.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.layers import Linear, xyxy_to_cxcywh


class ImageAttention(nn.Module):
    """Each query reads a few points of each level, in and around its box.

    Args:
        dim: D.
        num_heads: H.
        in_channels: of the pyramid.
        num_levels: of the pyramid.
        num_points: P, read by each head of each level.
    """

    def __init__(
        self, dim: int, num_heads: int, in_channels: int, num_levels: int, num_points: int
    ) -> None:
        super().__init__()
        self.shape = (num_heads, num_levels, num_points)
        self.value = Linear(in_channels, dim)
        self.offset = Linear(dim, math.prod(self.shape) * 2)
        self.weight = Linear(dim, math.prod(self.shape))
        self.out = Linear(dim, dim)
        self._spread_points()

    @torch.no_grad()
    def _spread_points(self) -> None:
        """Each head starts in a direction of its own, its points ever farther off."""
        num_heads, num_levels, num_points = self.shape
        angle = torch.arange(num_heads) * (2 * math.pi / num_heads)
        way = torch.stack([angle.cos(), angle.sin()], dim=-1)
        way = way / way.abs().amax(-1, keepdim=True)  # (H, 2), on the sides of a square
        steps = torch.arange(1, num_points + 1)[:, None]
        spread = (way[:, None, None] * steps).expand(-1, num_levels, -1, -1)  # (H, L, P, 2)
        self.offset.bias.copy_(spread.flatten())
        for weight in (self.offset.weight, self.weight.weight, self.weight.bias):
            nn.init.zeros_(weight)

    def forward(self, queries: Tensor, boxes: Tensor, features: ImageFeatures) -> Tensor:
        """Read the image of each query.

        Args:
            queries: (B, M, D), with position.
            boxes: (B, M, 4) normalised.
            features: of the batch.

        Returns:
            (B, M, D).
        """
        num_points = self.shape[-1]
        centre, size = xyxy_to_cxcywh(boxes)[:, :, None, None, None].split(2, dim=-1)
        offset = self.offset(queries).unflatten(-1, (*self.shape, 2))  # (B, M, H, L, P, 2)
        points = centre + offset / num_points * size / 2  # (B, M, H, L, P, 2)
        weight = self.weight(queries).unflatten(-1, self.shape)
        weight = weight.flatten(-2).softmax(-1).view(weight.shape)  # (B, M, H, L, P)

        read = queries.new_zeros(queries.shape)
        for index, levels in enumerate(features.groups):
            images = (features.group == index).nonzero()[:, 0]
            shown = self._read(levels, points[images], weight[images], features.share[images])
            read = read.index_copy(0, images, shown.to(read))
        return self.out(read)

    def _read(self, levels: list[Tensor], points: Tensor, weight: Tensor, share: Tensor) -> Tensor:
        """Weighted sums at points (G, M, H, L, P, 2) of images of one padded size, (G, M, D)."""
        group, queries, heads = points.shape[:3]
        total = 0
        for index, level in enumerate(levels):
            value = self.value(level.flatten(2).transpose(1, 2))  # (G, hw, D)
            value = value.transpose(1, 2).reshape(group * heads, -1, *level.shape[2:])
            # [0, 1] of the image -> [-1, 1] of the map, which ends farther out.
            place = points[..., index, :, :] * share[:, None, None, None] * 2 - 1
            place = place.transpose(1, 2)  # (G, H, M, P, 2)
            place = place.reshape(group * heads, queries, -1, 2).to(value.dtype)
            seen = F.grid_sample(value, place, align_corners=False)  # (GH, d, M, P)
            counts = weight[..., index, :].transpose(1, 2).reshape(group * heads, 1, queries, -1)
            total = total + (seen * counts).sum(-1)  # (GH, d, M)
        return total.view(group, heads, -1, queries).permute(0, 3, 1, 2).flatten(2)
