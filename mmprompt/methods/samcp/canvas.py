"""Unions of patches without their masks: products over the atoms of an image.

Atoms are the pieces that the same patches cover; a union of patches is a product with the matrix of
which patch covers which atom, and only answers are painted in pixels.

Notation: N patches, A atoms, R rows of affinities, (H, W) pixels of the original image.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmprompt.common.patches import PatchSet
from mmprompt.common.rle import Atoms
from mmprompt.methods.samcp.merging import boxes_around

#: Numbers that rows of affinities may become at a time: with thousands of classes, some of them.
AT_A_TIME = 2**24


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of R rows, each of as many as may become `width` numbers at a time, at least one."""
    count = max(1, AT_A_TIME // max(width, 1))
    return (slice(begin, begin + count) for begin in range(0, rows, count))


class Canvas:
    """The atoms of an image on a device.

    Args:
        patches: in the order of the columns of the affinities.
        device: of the affinities.
    """

    def __init__(self, patches: PatchSet, device: torch.device) -> None:
        atoms = Atoms.from_rles(patches.rles, patches.size)
        self.boxes = torch.from_numpy(patches.boxes).to(device)  # (N, 4)
        self.index = torch.from_numpy(atoms.index).to(device).long()  # (H, W)
        self.cover = torch.from_numpy(atoms.cover).to(device).float()  # (N, A)
        self.areas = torch.from_numpy(atoms.areas).to(device).double()  # (A,)
        self.patch, self.atom = self.cover.nonzero(as_tuple=True)  # (P,) pairs that meet

    def union(self, member: Tensor) -> Tensor:
        """(R, N) bool: patches of each row -> (R, A) bool: atoms that one of them covers."""
        return (member.float() @ self.cover) > 0

    def hulls(self, member: Tensor) -> Tensor:
        """(R, N) bool -> tight boxes (R, 4) of the unions, none of which is empty."""
        solid = self.boxes[:, 2] > self.boxes[:, 0]  # the box of an empty patch lies at the origin
        return boxes_around(self.boxes, member & solid, self.boxes.new_zeros(4))

    def area(self, union: Tensor) -> Tensor:
        """(R, A) bool -> (R,) double, pixels."""
        return union.double() @ self.areas

    def highest(self, values: Tensor, atoms: Tensor | None = None) -> Tensor:
        """Highest value of the patches that cover an atom, (R, A); 0 without any.

        Args:
            values: (R, N), not negative.
            atoms: (A,) bool, those that are asked for; the others are 0.
        """
        patch, atom = self.patch, self.atom
        if atoms is not None:
            some = atoms[atom]
            patch, atom = patch[some], atom[some]
        rows = values.new_zeros(len(values), len(self.areas))
        index = atom.expand(len(values), -1)
        return rows.scatter_reduce(1, index, values[:, patch], 'amax')

    def paint(self, table: Tensor) -> Tensor:
        """(A,) -> (H, W)."""
        return table[self.index]

    def paint_many(self, table: Tensor) -> Tensor:
        """(R, A) -> (R, H, W)."""
        index = self.index.flatten().expand(len(table), -1)  # faster than an index of columns
        return table.gather(1, index).unflatten(1, self.index.shape)
