"""SAM's prompt encoder: points and boxes as tokens, and the positions of the image's cells.

Coordinates are shares of the canvas, the square that SAM pads an image to: (x, y) in [0, 1], of the
long side in both directions.

Notation: N prompts, P points each, (h, w) cells, D channels.
"""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.foundation.sam.image_encoder import LayerNorm2d
from mmprompt.registry import MODELS

#: Labels of points: what a token says beside where it is.
NOTHING, BACKGROUND, FOREGROUND, BOX_START, BOX_END = -1, 0, 1, 2, 3


class FourierPosition(nn.Module):
    """Positions as sines and cosines of a fixed random projection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer('positional_encoding_gaussian_matrix', torch.randn(2, dim // 2))

    def forward(self, points: Tensor) -> Tensor:
        """(..., 2) shares (x, y) of the canvas -> (..., D)."""
        matrix = self.positional_encoding_gaussian_matrix
        phase = 2 * math.pi * ((2 * points.to(matrix) - 1) @ matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


@MODELS.register_module()
class SAMPromptEncoder(BaseModule):
    """Points, boxes and earlier masks as embeddings; parameter names are SAM's.

    Args:
        dim: D.
        mask_channels: of the small network that reads an earlier mask.
    """

    def __init__(self, dim: int = 256, mask_channels: int = 16, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.dim = dim
        self.pe_layer = FourierPosition(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        quarter = mask_channels // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, quarter, 2, stride=2),
            LayerNorm2d(quarter),
            nn.GELU(),
            nn.Conv2d(quarter, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def cells(self, size: tuple[int, int]) -> Tensor:
        """Positions of the centres of (h, w) cells, (D, h, w)."""
        rows, columns = (
            torch.arange(n, device=self.no_mask_embed.weight.device) + 0.5 for n in size
        )
        y, x = torch.meshgrid(rows / max(size), columns / max(size), indexing='ij')
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)

    def points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Tokens of labelled points, (..., D).

        Args:
            points: (..., 2) shares (x, y) of the canvas.
            labels: (...,) of `FOREGROUND`, `BACKGROUND`, the two corners of a box, or `NOTHING`,
                whose place does not count.
        """
        kinds = torch.cat(
            [self.not_a_point_embed.weight, *(e.weight for e in self.point_embeddings)]
        )
        placed = (labels != NOTHING)[..., None]
        return self.pe_layer(points) * placed + kinds[labels + 1]

    def closed(self, tokens: Tensor) -> Tensor:
        """Tokens (N, P, D) of points without a box, with the token that SAM ends them by."""
        end = self.not_a_point_embed.weight.expand(len(tokens), 1, -1)
        return torch.cat([tokens, end.to(tokens)], dim=1)

    def dense(self, masks: Tensor | None = None) -> Tensor:
        """What is added to the image's embedding: (N, D, h, w) of masks, (1, D, 1, 1) of none.

        Args:
            masks: (N, 1, 4h, 4w) logits of an earlier answer.
        """
        if masks is None:
            return self.no_mask_embed.weight[..., None, None]
        return self.mask_downscaling(masks)
