"""Semantic scores S of a batch, at the size of its pixels.

Notation: B images, Q queries, C classes, (h, w) at stride 4, (H, W) input pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmprompt.common.mask_merge import semantic_scores
from mmprompt.common.matching import at_least_float
from mmprompt.common.upsampling import MASK_STRIDE

CHUNK = 16  # classes whose scores are brought to the size of the pixels at a time


def _resize(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)


def scores_then_size(
    logits: Tensor, masks: Tensor, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Semantic scores at stride 4, then brought to `size`: C maps are resized, not Q."""
    return _resize(semantic_scores(logits, masks), size, align_corners)


def size_then_scores(
    logits: Tensor, masks: Tensor, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Mask logits brought to `size`, then merged into scores."""
    return semantic_scores(logits, _resize(masks, size, align_corners))


PUBLISHED = 'published'
TRAIN_RESIZES = dict(scores=scores_then_size, logits=size_then_scores)
# At the input's own size the published order is that of 'logits'.
TEST_RESIZES = {**TRAIN_RESIZES, PUBLISHED: size_then_scores}


def scores_of_pixels(
    logits: Tensor, masks: Tensor, size: tuple[int, int], resize: Callable, align_corners: bool
) -> Tensor:
    """Semantic scores (B, C, H, W) of the input's own pixels.

    Args:
        logits: (B, Q, C+1).
        masks: (B, Q, h, w).
        size: (H, W) of the images before padding.
        resize: one of `TEST_RESIZES`.
        align_corners: of the resize.
    """
    scores = resize(logits, masks, _canvas(masks, size), align_corners)
    return scores[..., : size[0], : size[1]]  # what was padded at the right and bottom goes


def _canvas(maps: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the padded input by a map (..., h, w) that must cover `size`."""
    height, width = (MASK_STRIDE * side for side in maps.shape[-2:])
    if height < size[0] or width < size[1]:
        raise ValueError(
            f'SEEMPromptHead expects a finest map of stride {MASK_STRIDE}; a map of '
            f'{tuple(maps.shape[-2:])} cells cannot cover {tuple(size)} pixels.'
        )
    return height, width


class LabelScores(NamedTuple):
    """All that the negative log-likelihood and the accuracy ask of the scores; each (B, H, W)."""

    chosen: Tensor  # score of the labelled class
    total: Tensor  # sum over the classes
    best: Tensor  # highest of the classes; no gradient


def scores_of_labels(
    logits: Tensor, masks: Tensor, label: Tensor, align_corners: bool
) -> LabelScores:
    """What `scores_of_pixels` says of labelled pixels, without (B, C, H, W) scores or gradients.

    Resizing is linear: the sum of resized maps is the resized sum, and a pixel's score is read off
    the four cells around it. For 150 classes that is a tenth of the memory.

    Args:
        logits: (B, Q, C+1).
        masks: (B, Q, h, w).
        label: (B, H, W) class indices, at the size of the images before padding.
        align_corners: of the resize.
    """
    scores = at_least_float(semantic_scores(logits, masks))  # (B, C, h, w)
    canvas, (height, width) = _canvas(masks, label.shape[-2:]), label.shape[-2:]
    total = _resize(scores.sum(dim=1, keepdim=True), canvas, align_corners)
    with torch.no_grad():
        best = torch.zeros_like(total)
        for part in scores.split(CHUNK, dim=1):
            highest = _resize(part, canvas, align_corners).amax(dim=1, keepdim=True)
            best = torch.maximum(best, highest)
    top, bottom, lower = _neighbours(canvas[0], scores.shape[2], height, align_corners, scores)
    left, right, righter = _neighbours(canvas[1], scores.shape[3], width, align_corners, scores)
    columns = scores.shape[3]
    flat = scores.flatten(1)  # (B, C * h * w)
    start = label.flatten(1) * (scores.shape[2] * columns)  # (B, H * W)
    chosen = 0.0
    for row, row_share in ((top, 1 - lower), (bottom, lower)):
        for column, column_share in ((left, 1 - righter), (right, righter)):
            cell = (row[:, None] * columns + column).flatten()  # (H * W,)
            share = (row_share[:, None] * column_share).flatten()
            chosen = chosen + flat.gather(1, start + cell) * share
    return LabelScores(
        chosen.unflatten(1, (height, width)),
        total[:, 0, :height, :width],
        best[:, 0, :height, :width],
    )


def _neighbours(
    size: int, cells: int, count: int, align_corners: bool, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells around each of the first `count` of `size` pixels, and the second one's share.

    As `interpolate` (bilinear) has them, along one side.
    """
    place = torch.arange(count, device=like.device, dtype=like.dtype)
    if align_corners:
        place = place * ((cells - 1) / max(size - 1, 1))
    else:
        place = ((place + 0.5) * (cells / size) - 0.5).clamp(min=0)
    first = place.long()
    return first, (first + 1).clamp(max=cells - 1), place - first
