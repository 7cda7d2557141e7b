"""The patches of one image: masks that somebody proposed, as run lengths.

Notation: N patches, K true units, (H, W) pixels of the original image, in whose frame everything
is; boxes are xyxy float32 with x2 and y2 behind the last pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from pycocotools import mask as coco_mask

from mmprompt.common import rle
from mmprompt.common.errors import UserError

Array = TypeVar('Array', np.ndarray, torch.Tensor)
Rect = Sequence[float]  # x1 y1 x2 y2 in pixels of the original image

CELLS = 7  # a patch is seen through a grid of 7 x 7 cells of its box


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches of one image, in the frame of the original image."""

    size: tuple[int, int]  # (H, W)
    rles: tuple[bytes, ...]  # N compressed COCO counts
    boxes: np.ndarray  # (N, 4) float32 xyxy, tight; 0 for an empty mask
    scores: np.ndarray  # (N,) float32, predicted quality; 1 if unknown
    areas: np.ndarray  # (N,) int64 pixels
    regions: np.ndarray  # (N, 7, 7) bool: at least half of this cell of the box is in the mask

    def __len__(self) -> int:
        return len(self.rles)

    @classmethod
    def from_masks(cls, masks: np.ndarray, scores: Sequence[float] | None = None) -> 'PatchSet':
        """Make patches of masks.

        Args:
            masks: (N, H, W) bool, or anything whose truth is the mask.
            scores: (N,); 1 without.
        """
        masks = np.asarray(masks)
        if masks.ndim != 3:
            raise ValueError(f'masks are (N, H, W), not of shape {masks.shape}')
        return cls.from_rles(encode(masks), masks.shape[1:], scores)

    @classmethod
    def from_rles(
        cls,
        rles: Sequence[bytes | str | dict],
        size: tuple[int, int],
        scores: Sequence[float] | None = None,
    ) -> 'PatchSet':
        """Make patches of run lengths.

        Args:
            rles: N compressed counts of COCO, or its `dict(size, counts)` with such counts.
            size: (H, W).
            scores: (N,); 1 without.

        Raises:
            UserError: an entry is no run length code of an image of this size.
        """
        size = (int(size[0]), int(size[1]))
        counts = tuple(_counts(each, size, index) for index, each in enumerate(rles))
        runs = rle.parse(counts, size, 'patch')
        if scores is None:
            scores = np.ones(len(counts))
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != (len(counts),):
            raise ValueError(f'{len(counts)} patches have scores of shape {scores.shape}')
        boxes = runs.boxes()
        return cls(
            size=size,
            rles=counts,
            boxes=boxes.astype(np.float32),
            scores=scores,
            areas=runs.areas(),
            regions=rle.region_bits(runs, boxes, CELLS),
        )

    def select(self, index: np.ndarray | Sequence[int]) -> 'PatchSet':
        """The patches of an index or of a bool mask (N,), in its order."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return PatchSet(
            size=self.size,
            rles=tuple(self.rles[i] for i in index.tolist()),
            boxes=self.boxes[index],
            scores=self.scores[index],
            areas=self.areas[index],
            regions=self.regions[index],
        )

    @staticmethod
    def concat(sets: Sequence['PatchSet']) -> 'PatchSet':
        """The patches of several sources of one image, one source after the other."""
        sizes = sorted({each.size for each in sets})
        if len(sizes) != 1:
            raise UserError(f'patches to be joined are of one image; found the sizes {sizes}.')
        return PatchSet(
            size=sizes[0],
            rles=tuple(rle_ for each in sets for rle_ in each.rles),
            **{
                name: np.concatenate([getattr(each, name) for each in sets])
                for name in ('boxes', 'scores', 'areas', 'regions')
            },
        )

    def decode(self) -> np.ndarray:
        """The masks, (N, H, W) bool. Each is laid out column by column, as COCO does."""
        if not len(self):
            return np.zeros((0, *self.size), dtype=bool)
        return coco_mask.decode(self.coco()).view(bool).transpose(2, 0, 1)

    def coco(self) -> list[dict]:
        """The masks as COCO's RLE, N times `dict(size=[H, W], counts=bytes)`."""
        return as_coco(self.rles, self.size)


def as_coco(rles: Sequence[bytes], size: tuple[int, int]) -> list[dict]:
    """Compressed counts as COCO's RLE, each `dict(size=[H, W], counts=bytes)`."""
    return [{'size': list(size), 'counts': each} for each in rles]


def encode(masks: np.ndarray) -> list[bytes]:
    """Compressed counts of masks (N, H, W), of which only the truth counts."""
    coded = []
    for mask in masks:
        columns = np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8)  # (H, W)
        coded.append(coco_mask.encode(columns)['counts'])
    return coded


class Cropped(NamedTuple):
    """What a crop leaves of patches: M of N, in the frame of the original image."""

    index: np.ndarray  # (M,) int64: which patches, ascending
    boxes: np.ndarray  # (M, 4) float32 xyxy, tight around what is left
    areas: np.ndarray  # (M,) int64: pixels left
    regions: np.ndarray  # (M, 7, 7) bool, of the new boxes


def cropped(patches: PatchSet, crop: Rect | None, runs: rle.Runs | None = None) -> Cropped:
    """Cut patches by a rectangle, exactly; those of which nothing is left are gone.

    Only the run lengths of patches across the rectangle's edge are read.

    Args:
        patches: N patches.
        crop: see `whole_pixels`; None for all of the image.
        runs: of the patches, if they were read already.
    """
    x1, y1, x2, y2 = whole_pixels(crop, patches.size)
    left, top, right, bottom = patches.boxes.T
    touches = (patches.areas > 0) & (left < x2) & (right > x1) & (top < y2) & (bottom > y1)
    inside = (left >= x1) & (right <= x2) & (top >= y1) & (bottom <= y2)
    across = np.flatnonzero(touches & ~inside)
    boxes, areas = patches.boxes.copy(), np.where(touches, patches.areas, 0)
    regions = patches.regions.copy()
    if len(across):
        if runs is None:
            runs = rle.parse([patches.rles[i] for i in across.tolist()], patches.size, 'patch')
        else:
            runs = _only(runs, across)
        runs = rle.cut(runs, (x1, y1, x2, y2))
        tight = runs.boxes()
        boxes[across], areas[across] = tight, runs.areas()
        regions[across] = rle.region_bits(runs, tight, CELLS)
    index = np.flatnonzero(areas)
    return Cropped(index, boxes[index], areas[index], regions[index])


def _only(runs: rle.Runs, index: np.ndarray) -> rle.Runs:
    """The runs of some of N masks, of an ascending index."""
    number = np.full(runs.count, -1)
    number[index] = np.arange(len(index))
    owner = number[runs.owner]
    mine = np.flatnonzero(owner >= 0)
    return rle.Runs(runs.size, len(index), owner[mine], runs.start[mine], runs.stop[mine])


def iop(patches: PatchSet, units: Sequence[bytes], crop: Rect | None = None) -> np.ndarray:
    """Intersection of unit and patch over the area of the patch, (K, N) float32, exact.

    Args:
        patches: N patches.
        units: K compressed counts of the same image.
        crop: see `whole_pixels`; what lies outside belongs neither to units nor to patches. 0 for
            a patch of which nothing is inside. None for all of the image.
    """
    if not len(patches) or not len(units):
        return np.zeros((len(units), len(patches)), dtype=np.float32)
    whole = np.maximum(patches.areas, 1)
    rows, left = list(units), whole
    if crop is not None:
        rect = whole_pixels(crop, patches.size)
        everything = rle.Runs(patches.size, 1, *np.array([[0], [0], [np.prod(patches.size)]]))
        kept = rle.cut(rle.parse(units, patches.size, 'unit'), rect)
        # Cutting the units is enough; the rectangle itself, as one more unit, gives what is left
        # of the patches.
        rows = rle.encode_runs(kept) + rle.encode_runs(rle.cut(everything, rect))
    shares = coco_mask.iou(patches.coco(), as_coco(rows, patches.size), [1] * len(rows))  # (N, K)
    pixels = np.rint(np.asarray(shares).T * whole)  # a share times its area is a whole number
    if crop is not None:
        pixels, left = pixels[:-1], np.maximum(pixels[-1], 1)
    return (pixels / left).astype(np.float32)


def whole_pixels(rect: Rect | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels whose centres lie in a rectangle: x1 y1 x2 y2, x2 and y2 behind the last.

    Args:
        rect: x1 y1 x2 y2 in pixels, in which pixel 0 goes from 0 to 1; None for all of the image.
        size: (H, W), beyond which there are none.
    """
    height, width = size
    if rect is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = np.ceil(np.asarray(rect, dtype=np.float64) - 0.5).tolist()
    x1, y1 = min(max(int(x1), 0), width), min(max(int(y1), 0), height)
    return x1, y1, min(max(int(x2), x1), width), min(max(int(y2), y1), height)


def box_iop(patches: Array, units: Array) -> Array:
    """Intersection of boxes over the area of the patch's, (K, N); 0 for a patch without area.

    Args:
        patches: (N, 4) xyxy, arrays or tensors alike.
        units: (K, 4) xyxy in the same frame.
    """
    shared, own, _ = _box_areas(patches, units)
    return shared / _at_least_some(own)


def box_iou(patches: Array, units: Array) -> Array:
    """Intersection of boxes over their union, (K, N); 0 where both are without area.

    Args:
        patches: (N, 4) xyxy, arrays or tensors alike.
        units: (K, 4) xyxy in the same frame.
    """
    shared, own, other = _box_areas(patches, units)
    return shared / _at_least_some(own + other - shared)


def _box_areas(patches: Array, units: Array) -> tuple[Array, Array, Array]:
    """Shared areas (K, N), and those of the patches (1, N) and of the units (K, 1)."""
    library = torch if isinstance(patches, torch.Tensor) else np
    a, b = patches[None, :], units[:, None]
    low = library.maximum(a[..., :2], b[..., :2])  # (K, N, 2)
    high = library.minimum(a[..., 2:], b[..., 2:])
    sides = [(high - low), a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]]
    shared, own, other = (each.clip(min=0).prod(-1) for each in sides)
    return shared, own, other


def _at_least_some(areas: Array) -> Array:
    return areas + (areas <= 0)


def _counts(entry: bytes | str | dict, size: tuple[int, int], index: int) -> bytes:
    if isinstance(entry, dict):
        found = tuple(entry['size'])
        if found != size:
            raise UserError(
                f'patch {index} is of an image of {found[0]}x{found[1]} pixels (height x width); '
                f'expected {size[0]}x{size[1]}. Take the patches that were made of this image.'
            )
        entry = entry['counts']
    if isinstance(entry, str):
        entry = entry.encode()
    if not isinstance(entry, bytes):
        raise UserError(
            f'patch {index} is a {type(entry).__name__}; expected compressed run lengths (bytes '
            'or str). Compress plain counts with pycocotools.mask.frPyObjects.'
        )
    return entry
