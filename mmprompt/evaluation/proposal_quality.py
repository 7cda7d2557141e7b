"""How well patches fit true objects before anything is learned (Table 9, Figs. 10 and 11).

Three ways to make an object of patches, each a row of the table:

- `best`: the one patch of highest IoU, "the highest-IoU proposal";
- `parts`: guided by the truth, the union of all patches that lie in the object by more than 0.8
  (mask IoP); where there is none, the best patch. The paper merges "by referring to the ground
  truth" and does not say how: 0.8 is its own number for a part (tau), and the union replaces the
  best patch even where it fits worse, without which the paper's missing rate at 0.25 could not rise
  by merging as it does;
- `greedy`: beginning with the better of these two, patches are taken in or out, each time the one
  that raises the IoU most, until none does: near what any merging could reach, never below the two.

Notation: N patches, K objects, A atoms (`mmprompt.common.rle.Atoms`), (H, W) pixels of the original
image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmprompt.common.rle import Atoms, Runs

RULES = ('best', 'parts', 'greedy')
PART_IOP = 0.8
#: COCO's sizes, by pixels of the mask: up to 32^2, up to 96^2, the rest.
COCO_SIZES = dict(small=(0, 32**2), medium=(32**2, 96**2), large=(96**2, np.inf))
#: Finer: where small objects are lost, and whether large ones come in pieces.
FINE_SIZES = {
    '< 8^2': (0, 8**2),
    '8^2 - 16^2': (8**2, 16**2),
    '16^2 - 32^2': (16**2, 32**2),
    '32^2 - 64^2': (32**2, 64**2),
    '64^2 - 96^2': (64**2, 96**2),
    '96^2 - 192^2': (96**2, 192**2),
    '192^2 - 384^2': (192**2, 384**2),
    '>= 384^2': (384**2, np.inf),
}
COLUMNS = ('mIoU', 'mIoU>0.5', 'MR_0.25', 'MR_0.5', 'MR_0.75')


class ObjectQuality(NamedTuple):
    """Of K objects."""

    areas: np.ndarray  # (K,) int64 pixels
    best: np.ndarray  # (K,) float64 IoU; 0 without patches
    parts: np.ndarray  # (K,) float64 IoU
    greedy: np.ndarray  # (K,) float64 IoU
    best_patch: np.ndarray  # (K,) int64; -1 if no patch meets the object
    covered: np.ndarray  # (K,) float64 share of the object's pixels that lie in any patch


def stacked(first: Runs, second: Runs) -> Runs:
    """The masks of both, those of `second` behind."""
    return Runs(
        first.size,
        first.count + second.count,
        np.concatenate([first.owner, second.owner + first.count]),
        np.concatenate([first.start, second.start]),
        np.concatenate([first.stop, second.stop]),
    )


class Overlaps:
    """Objects and patches of one image as sets of atoms, and IoU of unions of patches.

    Args:
        objects: runs of K masks, which may overlap.
        patches: runs of N masks.

    Attributes:
        atoms: of objects and patches together, so that each lies in or outside of each.
        objects, patches: (K, A) and (N, A) bool, the atoms that they cover.
        shared: (K, N) float64 pixels of an object in a patch; iop, iou: the same as shares.
    """

    def __init__(self, objects: Runs, patches: Runs) -> None:
        self.atoms = Atoms.from_runs(stacked(objects, patches))
        self.objects = self.atoms.cover[: objects.count]
        self.patches = self.atoms.cover[objects.count :]
        self.areas = self.atoms.areas.astype(np.float64)
        self.object_areas = self.objects @ self.areas
        self.patch_areas = self.patches @ self.areas
        self.shared = (self.objects * self.areas) @ self.patches.T.astype(np.float64)
        self.iop = self.shared / np.maximum(self.patch_areas, 1)
        union = self.object_areas[:, None] + self.patch_areas - self.shared
        self.iou = self.shared / np.maximum(union, 1)

    def union_iou(self, members: np.ndarray) -> np.ndarray:
        """IoU (K,) of each object with the union of its patches, members (K, N) bool."""
        return self.iou_of(self.atoms_of(members))

    def atoms_of(self, members: np.ndarray) -> np.ndarray:
        """Atoms (M, A) bool of the union of each set of patches, members (M, N) bool."""
        return members.astype(np.float32) @ self.patches.astype(np.float32) > 0

    def iou_of(self, atoms: np.ndarray) -> np.ndarray:
        """IoU (K,) of each object with its own set of atoms (K, A) bool."""
        shared = (atoms & self.objects) @ self.areas
        return shared / np.maximum(self.object_areas + atoms @ self.areas - shared, 1)


def best_members(overlaps: Overlaps) -> np.ndarray:
    """(K, N) bool: the one patch of highest IoU, the first of equals; none where none meets."""
    members = np.zeros(overlaps.iou.shape, bool)
    if members.shape[1]:
        rows = np.flatnonzero(overlaps.iou.max(axis=1) > 0)
        members[rows, overlaps.iou[rows].argmax(axis=1)] = True
    return members


def part_members(overlaps: Overlaps, iop: float = PART_IOP) -> np.ndarray:
    """(K, N) bool: all patches of higher IoP; where there is none, the best one."""
    members = overlaps.iop > iop
    return np.where(members.any(axis=1, keepdims=True), members, best_members(overlaps))


def greedy_members(overlaps: Overlaps) -> np.ndarray:
    """(K, N) bool: from the better of the two above on, the exchange that helps most, again.

    An exchange takes one patch in or out. It ends where none raises the IoU of the union.
    """
    best, parts = best_members(overlaps), part_members(overlaps)
    better = overlaps.union_iou(parts) > overlaps.union_iou(best)
    members = np.where(better[:, None], parts, best)
    patches = overlaps.patches.astype(np.float64).T  # (A, N)
    active = np.flatnonzero(members.any(axis=1))
    while len(active):
        mine, objects = members[active], overlaps.objects[active]
        times = mine.astype(np.float32) @ overlaps.patches.astype(np.float32)  # (k, A)
        held = times > 0
        # What a patch changes: it brings what none holds, or takes away what it alone holds.
        new, own = ~held * overlaps.areas, (times == 1) * overlaps.areas
        inside = np.where(mine, -(own * objects) @ patches, (new * objects) @ patches)  # (k, N)
        outside = np.where(mine, -(own * ~objects) @ patches, (new * ~objects) @ patches)
        shared = ((held & objects) @ overlaps.areas)[:, None]
        whole = overlaps.object_areas[active, None] + ((held & ~objects) @ overlaps.areas)[:, None]
        reached = (shared + inside) / (whole + outside)
        chosen = reached.argmax(axis=1)
        rows = np.arange(len(active))
        helps = reached[rows, chosen] > (shared / whole)[:, 0]
        active, chosen = active[helps], chosen[helps]
        members[active, chosen] ^= True
    return members


def object_quality(overlaps: Overlaps, iop: float = PART_IOP) -> ObjectQuality:
    """Measure the patches of one image.

    Args:
        overlaps: of K true objects, none empty, and N patches.
        iop: of the rule `parts`.
    """
    best = best_members(overlaps)
    anywhere = overlaps.patches.any(axis=0)
    return ObjectQuality(
        overlaps.object_areas.astype(np.int64),
        overlaps.union_iou(best),
        overlaps.union_iou(part_members(overlaps, iop)),
        overlaps.union_iou(greedy_members(overlaps)),
        np.where(best.any(axis=1), best.argmax(axis=1) if best.shape[1] else -1, -1),
        (overlaps.objects & anywhere) @ overlaps.areas / np.maximum(overlaps.object_areas, 1),
    )


def joined(qualities: Sequence[ObjectQuality]) -> ObjectQuality:
    """The objects of many images one after another."""
    return ObjectQuality(*(np.concatenate(column) for column in zip(*qualities, strict=True)))


def summary(ious: np.ndarray) -> dict[str, float]:
    """Table 9 of the IoU (K,) of each object with what was made for it, in percent.

    mIoU is their mean and mIoU>0.5 that of those above 0.5; the missing rate MR_x is the share of
    objects without an IoU higher than x. NaN over no objects.
    """

    def mean(values: np.ndarray) -> float:
        return 100 * float(values.mean()) if values.size else float('nan')

    values = [mean(ious), mean(ious[ious > 0.5])]
    return dict(zip(COLUMNS, values + [mean(ious <= x) for x in (0.25, 0.5, 0.75)]))


def of_size(quality: ObjectQuality, low: float, high: float) -> ObjectQuality:
    """The objects of low <= pixels < high."""
    rows = (quality.areas >= low) & (quality.areas < high)
    return ObjectQuality(*(column[rows] for column in quality))
