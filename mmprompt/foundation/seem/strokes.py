"""From drawn strokes to points, and from points to values read off a feature map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmprompt.foundation.seem.features import Strokes


@dataclass
class StrokePoints:
    """Padded points of a batch.

    Attributes:
        where: (B, T, 2) as (row / H, column / W), zeros where padded.
        sign: (B, T) +1 positive, -1 negative, 0 padding.
    """

    where: Tensor
    sign: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, T) True where a point exists."""
        return self.sign != 0


def _subset(points: Tensor, limit: int, random: bool) -> Tensor:
    """At most `limit` rows: a random choice, or evenly spread ones when `random` is off."""
    count = points.shape[0]
    if count <= limit:
        return points
    if random:
        index = torch.randperm(count, device=points.device)[:limit]
    else:
        index = torch.arange(limit, device=points.device) * count // limit
    return points[index]


def stroke_points(strokes: Strokes, dtype: torch.dtype, limit: int, random: bool) -> StrokePoints:
    """Points of all strokes of a batch, at most `limit` of either sign per image.

    How many points a mask holds is known to its device alone: on a GPU, one wait per image and
    sign. Nothing is copied between devices.

    Args:
        strokes: boolean masks at the padded input size.
        dtype: floating type of the coordinates.
        limit: most points per sign and image.
        random: draw them (training) or spread them evenly (repeatable).
    """
    height, width = strokes.positive.shape[1:]
    rows, signs = [], []
    for i, positive in enumerate(strokes.positive):
        parts = [_subset(positive.nonzero(), limit, random)]
        sign = [torch.ones(len(parts[0]), device=positive.device)]
        if strokes.negative is not None:
            parts.append(_subset(strokes.negative[i].nonzero(), limit, random))
            sign.append(-torch.ones(len(parts[1]), device=positive.device))
        row, column = torch.cat(parts).to(dtype).unbind(1)
        rows.append(torch.stack((row / height, column / width), 1))
        signs.append(torch.cat(sign).to(dtype))
    return StrokePoints(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.nn.utils.rnn.pad_sequence(signs, batch_first=True),
    )


def sample_points(maps: Tensor, where: Tensor) -> Tensor:
    """Bilinear values at points, align_corners=True and no half-pixel shift, as the reference.

    Args:
        maps: (B, D, h, w).
        where: (B, T, 2) as (row, column) fractions.

    Returns:
        (B, T, D).
    """
    grid = 2.0 * where.flip(-1)[:, None].to(maps.dtype) - 1.0  # (B, 1, T, 2) as (x, y)
    values = F.grid_sample(maps, grid, mode='bilinear', align_corners=True)  # (B, D, 1, T)
    return values[:, :, 0].transpose(1, 2)


def mean_of_points(maps: Tensor, points: StrokePoints, sign: int) -> Tensor:
    """Mean value of `maps` under the points of one sign: (B, D), zero without such points."""
    values = sample_points(maps, points.where)  # (B, T, D)
    weight = (points.sign == sign).to(values.dtype)[..., None]  # (B, T, 1)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)
