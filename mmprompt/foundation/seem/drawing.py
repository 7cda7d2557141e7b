"""Strokes as a user might draw them, for training."""

import torch
from torch import Tensor


def draw_strokes(masks: Tensor, radius: int = 3, length: float = 60.0) -> Tensor:
    """One straight random stroke inside each mask.

    Args:
        masks: (S, H, W) bool; an empty mask gets an empty stroke.
        radius: half the width in pixels.
        length: the longest stroke in pixels.

    Returns:
        (S, H, W) bool, a part of `masks`.
    """
    height, width = masks.shape[-2:]
    ends = (torch.rand_like(masks, dtype=torch.float32) * masks).flatten(1).topk(2).indices
    y = ends.div(width, rounding_mode='floor').float()  # (S, 2)
    x = (ends % width).float()
    dy, dx = y[:, 1] - y[:, 0], x[:, 1] - x[:, 0]
    norm = (dx * dx + dy * dy).sqrt().clamp(min=1)
    reach = torch.rand_like(norm) * length
    share = (reach / norm).clamp(max=1)
    dy, dx = (dy * share)[:, None, None], (dx * share)[:, None, None]
    rows = torch.arange(height, device=masks.device)[None, :, None] - y[:, 0, None, None]
    columns = torch.arange(width, device=masks.device)[None, None, :] - x[:, 0, None, None]
    along = (rows * dy + columns * dx) / (dx * dx + dy * dy).clamp(min=1e-6)
    along = along.clamp(0, 1)
    distance = (rows - along * dy) ** 2 + (columns - along * dx) ** 2
    return (distance <= radius * radius) & masks
