"""MMDetection's resize, flip and crop without MMDetection, for every map of a sample.

They take the arguments of their namesakes, draw the same random numbers, change images the same way
and record it in ``homography_matrix``, by which patches follow the image. A look-up by the
name ``mmdet.Resize`` needs compiled operators of mmcv, and importing the classes takes seconds. As
MMSegmentation's transforms do, and unlike MMDetection's, these move every map in ``seg_fields``,
panoptic maps included.
"""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform, RandomChoiceResize
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import RandomFlip, Resize, ResizeShortestEdge

from mmprompt.registry import TRANSFORMS

Size = tuple[int, int]


def record(results: dict, scale: Sequence[float], offset: Sequence[float]) -> None:
    """Note x' = scale_x * x + offset_x, and the same for y, behind what is recorded already.

    As MMDetection does, in box coordinates: the centre of pixel (0, 0) is (1/2, 1/2).
    """
    step = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]], np.float64)
    before = results.get('homography_matrix')
    results['homography_matrix'] = step if before is None else step @ before


@TRANSFORMS.register_module()
class DetResize(Resize):
    """`mmseg.Resize` that records what it does, as `mmdet.Resize` does."""

    def transform(self, results: dict) -> dict:
        """Resize and record."""
        results = super().transform(results)
        record(results, results['scale_factor'], (0, 0))
        return results


@TRANSFORMS.register_module()
class DetRandomFlip(RandomFlip):
    """`mmseg.RandomFlip` that records what it does, as `mmdet.RandomFlip` does."""

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        height, width = results['img'].shape[:2]
        across = results['flip_direction'] in ('horizontal', 'diagonal')
        down = results['flip_direction'] in ('vertical', 'diagonal')
        scale = (-1 if across else 1, -1 if down else 1)
        record(results, scale, (width * across, height * down))


@TRANSFORMS.register_module()
class DetRandomCrop(BaseTransform):
    """Cut out a part of random place and, by ``crop_type``, of random size; as `mmdet.RandomCrop`.

    Of patches and true units nothing may be left: such a sample is kept, and trains as one without
    objects (MMDetection's ``allow_negative_crop=True``).

    Args:
        crop_size: (w, h) in pixels, or as shares of the image's sides; an image that is smaller is
            cut no further. For 'absolute_range' the least and the greatest length of a side.
        crop_type: 'absolute' takes ``crop_size``, 'absolute_range' draws both sides from its range,
            'relative' takes shares of both sides, and 'relative_range' draws shares from
            ``crop_size`` to 1.

    Raises:
        ValueError: another ``crop_type``, or a ``crop_size`` that does not go with it.
    """

    def __init__(self, crop_size: tuple[float, float], crop_type: str = 'absolute') -> None:
        whole = crop_type in ('absolute', 'absolute_range')
        if not whole and crop_type not in ('relative', 'relative_range'):
            raise ValueError(f'DetRandomCrop: unknown crop_type {crop_type!r}')
        fits = all(isinstance(n, int) and n > 0 if whole else 0 < n <= 1 for n in crop_size)
        if not fits or (crop_type == 'absolute_range' and crop_size[0] > crop_size[1]):
            raise ValueError(f'DetRandomCrop: crop_size {crop_size} does not go with {crop_type!r}')
        self.crop_size = tuple(crop_size)
        self.crop_type = crop_type

    def transform(self, results: dict) -> dict:
        """Cut the image and every map, and record it."""
        size = results['img'].shape[:2]
        height, width = self._get_crop_size(size)
        top, left = self._rand_offset((max(size[0] - height, 0), max(size[1] - width, 0)))
        for key in ('img', *dict.fromkeys(results.get('seg_fields', ()))):
            results[key] = results[key][top : top + height, left : left + width]
        results['img_shape'] = results['img'].shape[:2]
        record(results, (1, 1), (-left, -top))
        return results

    @cache_randomness
    def _rand_offset(self, margin: Size) -> Size:
        return np.random.randint(0, margin[0] + 1), np.random.randint(0, margin[1] + 1)

    @cache_randomness
    def _get_crop_size(self, size: Size) -> Size:
        """(h, w) of the part of an image (H, W)."""
        height, width = size
        first, second = self.crop_size
        if self.crop_type == 'absolute':
            return min(second, height), min(first, width)
        if self.crop_type == 'absolute_range':
            return tuple(np.random.randint(min(n, first), min(n, second) + 1) for n in size)
        shares = np.array([second, first])
        if self.crop_type == 'relative_range':
            low = np.asarray(self.crop_size, np.float32)  # MMDetection takes (h, w) here
            shares = low + np.random.rand(2) * (1 - low)
        return int(height * shares[0] + 0.5), int(width * shares[1] + 0.5)


@TRANSFORMS.register_module()
class DetRandomChoiceResize(RandomChoiceResize):
    """`RandomChoiceResize` with `DetResize` as the default ``resize_type``."""

    def __init__(self, scales: list, resize_type: str = 'DetResize', **resize_kwargs) -> None:
        super().__init__(scales=scales, resize_type=resize_type, **resize_kwargs)


@TRANSFORMS.register_module()
class DetResizeShortestEdge(ResizeShortestEdge):
    """`mmdet.ResizeShortestEdge` by means of `DetResize`.

    Args:
        scale: length of the shorter side; of a tuple, its smaller number.
        max_size: most that the longer side may have.
        resize_kwargs: of `DetResize`.
    """

    def __init__(self, scale: int | Size, max_size: int, **resize_kwargs) -> None:
        super().__init__(scale, max_size)
        self.resize = DetResize(scale=scale, **resize_kwargs)  # the scale is set for each image
