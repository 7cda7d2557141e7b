"""The true units of an image: every thing instance, and the region of every class.

They are made in the frame of the original image and stay there; what an augmentation shows of them
is cut out of their run lengths. So overlaps with patches are counts of original pixels and no
mask is ever warped.

Notation: K units, S segments of a label map (disjoint), N patches, R runs, (H, W) pixels of the
original image; a rectangle is x1 y1 x2 y2 in whole pixels, x2 and y2 behind the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmprompt.common import rle
from mmprompt.common.patches import as_coco
from mmprompt.datasets.transforms import ID_DIVISOR

Rect = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class CocoMasks:
    """Masks of one image that may overlap, as COCO annotates instances.

    Attributes:
        size: (H, W).
        rles: n compressed counts.
        labels: (n,) int64.
        is_crowd: (n,) bool; a crowd is a group not told apart.
        boxes: (n, 4) float32 xyxy as annotated, which may bound a polygon more closely than pixels.
    """

    size: tuple[int, int]
    rles: tuple[bytes, ...]
    labels: np.ndarray
    is_crowd: np.ndarray
    boxes: np.ndarray

    def decoded(self) -> InstanceData:
        """`masks` (n, H, W) bool, `bboxes`, `labels` and `is_crowd`, as `InstanceAP` reads them."""
        from pycocotools import mask as coco

        masks = np.zeros((0, *self.size), bool)
        if self.rles:
            masks = coco.decode(as_coco(self.rles, self.size)).transpose(2, 0, 1) > 0
        return InstanceData(
            masks=torch.from_numpy(np.ascontiguousarray(masks)),
            bboxes=torch.from_numpy(self.boxes.astype(np.float32)),
            labels=torch.from_numpy(self.labels.astype(np.int64)),
            is_crowd=torch.from_numpy(self.is_crowd.astype(bool)),
        )


class Seen(NamedTuple):
    """What a rectangle shows of K units."""

    pixels: np.ndarray  # (K,) int64
    boxes: np.ndarray  # (K, 4) int64, tight, in the frame of the whole image; 0 if nothing is seen
    shared: np.ndarray  # (K, N) float64, the pixels in it that they share with each patch


@dataclass(frozen=True, eq=False)
class TrueUnits:
    """K units: instances of things first, then the region of each class, things included.

    Attributes:
        labels: (K,) int64.
        is_instance: (K,) bool.
        segments: runs of S disjoint segments, of which the units are unions ...
        members: (K, S) bool ... namely these.
        masks: compressed counts of the first units, if they are not segments since they overlap.
    """

    labels: np.ndarray
    is_instance: np.ndarray
    segments: rle.Runs
    members: np.ndarray
    masks: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_map(cls, panoptic: np.ndarray, things: Sequence[int]) -> 'TrueUnits':
        """Units of a panoptic map.

        Args:
            panoptic: (H, W), see `mmprompt.datasets.transforms`.
            things: classes with instances. A segment with number 0 is a crowd: it belongs to the
                region of its class and is no instance.
        """
        runs, ids = map_runs(panoptic)
        labels, number = np.divmod(ids, ID_DIVISOR)
        labels = labels - 1
        single = np.flatnonzero(np.isin(labels, np.asarray(things)) & (number > 0))
        return cls._of(runs, labels, single)

    @classmethod
    def from_labels(cls, labels: np.ndarray, ignored: int = 255) -> 'TrueUnits':
        """Units of a map (H, W) of class numbers alone: the region of every class."""
        ids = np.where(labels == ignored, 0, (labels.astype(np.int64) + 1) * ID_DIVISOR)
        return cls.from_map(ids, ())

    @classmethod
    def from_masks(
        cls, panoptic: np.ndarray, masks: CocoMasks, whole_regions: bool = False
    ) -> 'TrueUnits':
        """Units of masks that may overlap, with the regions of a panoptic map painted of them.

        Args:
            panoptic: (H, W), see `mmprompt.datasets.transforms`.
            masks: of the image.
            whole_regions: the region of a class is the union of its masks, crowds included, and
                regions overlap as masks do; the map is not read.
        """
        if whole_regions:
            return cls._of_masks(masks)
        runs, ids = map_runs(panoptic)
        regions = cls._of(runs, ids // ID_DIVISOR - 1, np.zeros(0, np.int64))
        single = np.flatnonzero(~masks.is_crowd)
        labels = np.concatenate([masks.labels[single], regions.labels])
        hidden = np.zeros((len(single), runs.count), bool)
        return cls(
            labels=labels.astype(np.int64),
            is_instance=np.arange(len(labels)) < len(single),
            segments=runs,
            members=np.concatenate([hidden, regions.members]),
            masks=tuple(masks.rles[i] for i in single),
        )

    @classmethod
    def _of_masks(cls, masks: CocoMasks) -> 'TrueUnits':
        from pycocotools import mask as coco

        single, classes = np.flatnonzero(~masks.is_crowd), np.unique(masks.labels)
        codes = as_coco(masks.rles, masks.size)
        regions = [
            coco.merge([codes[i] for i in np.flatnonzero(masks.labels == c)]) for c in classes
        ]
        labels = np.concatenate([masks.labels[single], classes]).astype(np.int64)
        runs, _ = map_runs(np.zeros(masks.size, np.int64))
        return cls(
            labels=labels,
            is_instance=np.arange(len(labels)) < len(single),
            segments=runs,
            members=np.zeros((len(labels), 0), bool),
            masks=(*(masks.rles[i] for i in single), *(region['counts'] for region in regions)),
        )

    @classmethod
    def _of(cls, runs: rle.Runs, labels: np.ndarray, single: np.ndarray) -> 'TrueUnits':
        classes = np.unique(labels)
        return cls(
            labels=np.concatenate([labels[single], classes]).astype(np.int64),
            is_instance=np.arange(len(single) + len(classes)) < len(single),
            segments=runs,
            members=np.concatenate(
                [single[:, None] == np.arange(runs.count), classes[:, None] == labels]
            ),
        )

    def seen(self, patches: rle.Runs, rect: Rect | None) -> Seen:
        """What of the units a rectangle shows.

        Args:
            patches: runs of N patches.
            rect: None for all of the image.
        """
        own = self.segments if rect is None else rle.cut(self.segments, rect)
        pixels, boxes = self.members @ own.areas(), _hulls(own.boxes(), self.members)
        shared = self.members.astype(np.float64) @ overlaps(own, patches)
        if self.masks:
            own = rle.parse(self.masks, patches.size, 'annotation')
            own = own if rect is None else rle.cut(own, rect)
            some = slice(len(self.masks))
            pixels[some], boxes[some] = own.areas(), own.boxes()
            shared[some] = rle.shared_pixels(own, patches)
        return Seen(pixels, boxes, shared)


def map_runs(ids: np.ndarray) -> tuple[rle.Runs, np.ndarray]:
    """Runs of the S segments of a map (H, W), and their ids (S,) in rising order; void has none."""
    column = np.ascontiguousarray(ids.T).ravel()  # (W * H,) column by column
    start = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1])
    stop = np.concatenate([start[1:], [column.size]])
    value = column[start]
    kept = value >= ID_DIVISOR
    found, owner = np.unique(value[kept], return_inverse=True)
    order = np.argsort(owner, kind='stable')
    start, stop = start[kept][order], stop[kept][order]
    return rle.Runs(ids.shape, len(found), owner[order], start, stop), found.astype(np.int64)


def overlaps(segments: rle.Runs, patches: rle.Runs) -> np.ndarray:
    """Pixels that disjoint segments share with patches, (S, N) float64 of whole numbers."""
    order = np.argsort(segments.start)
    start, stop, owner = (x[order] for x in (segments.start, segments.stop, segments.owner))
    # Of every pixel where it lies: 2 i in the gap before run i, 2 i + 1 in it. On so many
    # positions a table beats a search.
    edges = np.stack([start, stop], axis=1).ravel()
    pixels = segments.size[0] * segments.size[1]
    gaps = np.diff(edges, prepend=0, append=pixels)
    at = np.repeat(np.arange(len(gaps), dtype=np.int32), gaps)  # (W * H,)
    first = at[patches.start] >> 1
    count = ((at[patches.stop - 1] + 1) >> 1) - first
    some = np.flatnonzero(count)
    met = first[some]
    length = np.minimum(stop[met], patches.stop[some]) - np.maximum(start[met], patches.start[some])
    total = _added(owner[met], patches.owner[some], length, segments.count, patches.count)
    more = some[count[some] > 1]  # few runs of a patch meet several of the map
    if len(more):
        rest = count[more] - 1
        which = np.repeat(more, rest)
        met = first[which] + 1 + np.arange(len(which)) - np.repeat(np.cumsum(rest) - rest, rest)
        length = np.minimum(stop[met], patches.stop[which]) - start[met]
        total += _added(owner[met], patches.owner[which], length, segments.count, patches.count)
    return total.reshape(segments.count, patches.count)


def _added(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, rows: int, columns: int
) -> np.ndarray:
    """Sums of values by row and column, flat (rows * columns,) float64."""
    return np.bincount(row * columns + column, weights=value, minlength=rows * columns)


def _hulls(boxes: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Boxes (K, 4) around the members' boxes (S, 4) that are not empty; 0 without any."""
    some = members & (boxes[:, 2] > boxes[:, 0])
    if not boxes.size:
        return np.zeros((len(members), 4), np.int64)
    far = np.iinfo(np.int64).max
    low = np.where(some[..., None], boxes[:, :2], far).min(axis=1)
    high = np.where(some[..., None], boxes[:, 2:], 0).max(axis=1)
    return np.concatenate([np.where(some.any(axis=1)[:, None], low, 0), high], axis=1)
