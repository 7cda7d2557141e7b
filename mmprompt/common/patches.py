"""The patches of one image: masks that somebody proposed, as run lengths.

Notation: N patches, K true units, (H, W) pixels of the original image, in whose frame everything
is; boxes are xyxy float32 with x2 and y2 behind the last pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def runs(self) -> rle.Runs:
        """The runs of all patches; read once, and not taken along to another process."""
        return rle.parse(self.rles, self.size, 'patch')

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != 'runs'}

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
            regions=region_bits(runs, boxes),
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


def region_bits(runs: rle.Runs, boxes: np.ndarray, cells: int = CELLS) -> np.ndarray:
    """Which cells of a grid on its box a mask covers at least half of, (N, cells, cells) bool.

    What RoIAlign of the full mask on its own box and a threshold of a half mean, with the exact
    share of a cell's area in place of the mean of bilinear samples. In whole numbers, so that a
    half is a half; no mask is painted. All False for an empty box.

    Args:
        runs: of N masks. What of them lies outside its box counts for nothing.
        boxes: (N, 4) whole numbers, x1 y1 x2 y2.
        cells: on each side.
    """
    # Lengths are in units of 1 / cells pixel, which makes every corner of the grid whole. The area
    # of a mask left of X in row i of the grid is a sum over ends of runs at (column c, row r), a
    # stop less a start: h * min(c, X) for whole columns + part(r) * clip(X - c, 0, 1), where part
    # is how much of the grid's row, of height h, lies above r.
    height = runs.size[0]
    boxes = boxes.astype(np.int64)
    owner = np.repeat(runs.owner, 2)
    position = np.stack([runs.start, runs.stop], axis=1).ravel()  # (E,)
    sign = np.tile([-1, 1], len(runs.owner))
    column, row = np.divmod(position, height)
    sides = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
    steps = np.arange(cells + 1)
    corners = cells * boxes[:, :1] + sides[:, :1] * steps  # (N, cells + 1), columns of the grid
    whole, part = np.divmod(corners, cells)

    # Ends left of a corner's column, and up to it: (N, cells + 1) each.
    span = runs.size[1] + 2
    keys = owner * span + column
    wanted = np.arange(runs.count)[:, None] * span + whole
    below, upto = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted + 1)
    first = 2 * runs.first()
    head, tail = first[:-1, None], first[1:, None]

    def total(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(values)])

    signs, moments = total(sign), total(sign * column)
    reach = cells * (moments[upto] - moments[head]) + corners * (signs[tail] - signs[upto])
    area = np.empty((runs.count, cells, cells), dtype=np.int64)
    tall = sides[:, 1]
    offset = cells * (row - boxes[owner, 1])
    for i in range(cells):
        high = tall[owner]
        inside = total(sign * np.clip(offset - i * high, 0, high))
        left = cells * (inside[below] - inside[head]) + part * (inside[upto] - inside[below])
        area[:, i] = np.diff(tall[:, None] * reach + left, axis=1)
    cell = sides.prod(axis=1)[:, None, None]
    return (2 * area >= cell) & (cell > 0)


class Cropped(NamedTuple):
    """What a crop leaves of patches: M of N, in the frame of the original image."""

    index: np.ndarray  # (M,) int64: which patches, ascending
    boxes: np.ndarray  # (M, 4) float32 xyxy, tight around what is left
    areas: np.ndarray  # (M,) int64: pixels left
    regions: np.ndarray  # (M, 7, 7) bool, of the new boxes


def cropped(patches: PatchSet, crop: Rect | None) -> Cropped:
    """Cut patches by a rectangle, exactly; those of which nothing is left are gone.

    Args:
        patches: N patches.
        crop: see `whole_pixels`; None for all of the image.
    """
    x1, y1, x2, y2 = whole_pixels(crop, patches.size)
    left, top, right, bottom = patches.boxes.T
    touches = (patches.areas > 0) & (left < x2) & (right > x1) & (top < y2) & (bottom > y1)
    inside = (left >= x1) & (right <= x2) & (top >= y1) & (bottom <= y2)
    across = np.flatnonzero(touches & ~inside)
    boxes, areas = patches.boxes.copy(), np.where(touches, patches.areas, 0)
    regions = patches.regions.copy()
    if len(across):
        runs = rle.cut(patches.runs.select(across), (x1, y1, x2, y2))
        tight = runs.boxes()
        boxes[across], areas[across] = tight, runs.areas()
        regions[across] = region_bits(runs, tight)
    index = np.flatnonzero(areas)
    return Cropped(index, boxes[index], areas[index], regions[index])


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
    seen, left = rle.parse(units, patches.size, 'unit'), patches.areas
    if crop is not None:
        rect = whole_pixels(crop, patches.size)
        seen = rle.cut(seen, rect)  # which is enough: what is shared lies in both
        left = rle.cut(patches.runs, rect).areas()
    shared = rle.shared_pixels(seen, patches.runs)
    return (shared / np.maximum(left, 1)).astype(np.float32)


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
