"""Patches without a network: the segments of Felzenszwalb and Huttenlocher at several scales."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmprompt.common.errors import UserError
from mmprompt.common.patches import PatchSet, as_coco
from mmprompt.common.rle import encode_runs, runs_of_map
from mmprompt.foundation.patch_generators.base import PatchGenerator
from mmprompt.registry import MODELS


@MODELS.register_module()
class FelzenszwalbPatches(PatchGenerator):
    """Each connected segment of each scale is a patch; of two that are nearly equal one stays.

    *Efficient Graph-Based Image Segmentation* (2004), as in scikit-image. There is no measure of
    quality, so all scores are 1.

    Args:
        scales: the larger, the larger are segments. Small ones come first in a store.
        sigma: of the Gaussian that smooths the image before.
        min_size: pixels of the smallest segments.
        reference: H * W of an image for which `scales` and `min_size` are. Both grow with the area
            of an image, as the pixels of a segment do, by which the method divides the scale.
        same: of two patches whose IoU is above it, that of the smaller scale stays.
        max_share: a patch that covers more of the image is left out.
    """

    name = 'felzenszwalb'

    def __init__(
        self,
        scales: Sequence[float] = (30, 150, 600),
        sigma: float = 0.3,
        min_size: int = 12,
        reference: int = 128 * 256,
        same: float = 0.9,
        max_share: float = 1.0,
    ) -> None:
        self.scales = tuple(sorted(float(scale) for scale in scales))
        if not self.scales or self.scales[0] <= 0 or min_size < 1 or sigma < 0:
            raise UserError(
                f'FelzenszwalbPatches: expected positive scales and min_size and a sigma that is '
                f'not negative, found scales={scales}, min_size={min_size}, sigma={sigma}. Correct '
                f'them.'
            )
        self.sigma, self.min_size, self.reference = sigma, min_size, reference
        self.same, self.max_share = same, max_share

    def settings(self) -> dict[str, Any]:
        names = ('scales', 'sigma', 'min_size', 'reference', 'same', 'max_share')
        return {name: getattr(self, name) for name in names}

    def __call__(self, image: np.ndarray) -> PatchSet:
        felzenszwalb = _felzenszwalb()
        size = image.shape[:2]
        larger = image.shape[0] * image.shape[1] / self.reference
        rles: list[bytes] = []
        for scale in self.scales:
            labels = felzenszwalb(
                image,
                scale=scale * larger,
                sigma=self.sigma,
                min_size=max(1, round(self.min_size * larger)),
                channel_axis=-1,
            )
            rles += self._new(segments(labels, self.max_share), rles, size)
        return PatchSet.from_rles(rles, size)

    def _new(self, found: list[bytes], before: list[bytes], size: tuple[int, int]) -> list[bytes]:
        """Those of `found` that are not like one of `before`."""
        if not found or not before:
            return found
        iou = coco_mask.iou(as_coco(found, size), as_coco(before, size), [0] * len(before))
        return [rle for rle, same in zip(found, iou.max(1)) if same <= self.same]


def segments(labels: np.ndarray, max_share: float = 1.0) -> list[bytes]:
    """Compressed counts of the labels of a map (H, W), in their order.

    Args:
        labels: any integers; pixels of one are one mask.
        max_share: those that cover more of the map are left out.
    """
    runs, _ = runs_of_map(labels)
    fits = runs.areas() <= max_share * labels.size
    return [rle for rle, fit in zip(encode_runs(runs), fits) if fit]


def _felzenszwalb():
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise UserError(
            'FelzenszwalbPatches needs scikit-image, which is not installed. Install it with '
            '`pip install scikit-image`.'
        ) from error
    return felzenszwalb
