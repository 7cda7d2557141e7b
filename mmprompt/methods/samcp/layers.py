"""Small parts of the patch encoder and the affinity decoder.

Both are DETR's layers: attention and feed-forward, each followed by addition and LayerNorm, with
the position added to queries and keys only.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmprompt.foundation.seem.layers import Attention, FeedForward, Linear

TEMPERATURE = 10_000.0

__all__ = ['MLP', 'Attention', 'Branch', 'FeedForward', 'Linear', 'sine_boxes']


class MLP(nn.Sequential):
    """Linear layers with ReLU between them.

    Args:
        widths: of the input, of each hidden layer and of the output.
    """

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:]):
            layers += [Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])


class Branch(nn.Module):
    """x -> LayerNorm(x + branch(x, ...)).

    Args:
        dim: D.
        branch: gives what is added, of the shape of x.
    """

    def __init__(self, dim: int, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, *inputs: Tensor | None) -> Tensor:
        """(B, M, D) -> (B, M, D); without further inputs the branch reads x itself."""
        return self.norm(x + self.branch(*(inputs or (x,))))


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners -> (..., 4) centres and sizes."""
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centres and sizes -> (..., 4) corners."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def sine_boxes(boxes: Tensor, dim: int) -> Tensor:
    """Sines and cosines of centre and size, D / 2 for each of the four.

    Args:
        boxes: (..., 4) normalised corners.
        dim: D, a multiple of 4.

    Returns:
        (..., 2 D).
    """
    feats = dim // 2
    index = torch.arange(feats // 2, device=boxes.device, dtype=boxes.dtype)
    period = TEMPERATURE ** (2 * index / feats)  # (D / 4,)
    angle = xyxy_to_cxcywh(boxes)[..., None] * (2 * math.pi) / period  # (..., 4, D / 4)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-3)


def stacked(rows: Sequence[Tensor], most: int | None = None, value: float = 0) -> Tensor:
    """Rows of unequal numbers [(n_b, ...)] -> (B, most, ...), filled up with a value.

    Args:
        most: at least the largest n_b, which it is if None.
    """
    most = max(len(row) for row in rows) if most is None else most
    out = rows[0].new_full((len(rows), most, *rows[0].shape[1:]), value)
    for place, row in zip(out, rows):
        place[: len(row)] = row
    return out
