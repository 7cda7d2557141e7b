"""Semantic scores S of a batch, at the size of its pixels.

Notation: B images, Q queries, C classes, (h, w) at stride 4, (H, W) input pixels.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from mmprompt.common.mask_merge import semantic_scores
from mmprompt.common.upsampling import MASK_STRIDE


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
    height, width = (MASK_STRIDE * side for side in masks.shape[-2:])
    if height < size[0] or width < size[1]:
        raise ValueError(
            f'SEEMPromptHead expects a finest map of stride {MASK_STRIDE}; a map of '
            f'{tuple(masks.shape[-2:])} cells cannot cover {tuple(size)} pixels.'
        )
    scores = resize(logits, masks, (height, width), align_corners)
    return scores[..., : size[0], : size[1]]  # what was padded at the right and bottom goes
