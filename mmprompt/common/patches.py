"""The patches of one image: masks that somebody proposed, as run lengths.

Notation: N patches, K true units, (H, W) pixels of the original image, in whose frame everything
is; boxes are xyxy float32 with x2 and y2 behind the last pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from mmprompt.common import rle
from mmprompt.common.errors import UserError

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
