"""Embeddings of classes that have one name or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Texts:
    """Embeddings of C classes by their E >= C entries, which are names.

    Attributes:
        entries: (E, D) one row for each entry, brought to unit length here.
        class_of: (E,) int64, the class of each entry: sorted, none of the C left out; without it
            every class has one entry.
        names: of each class those of its entries; None where nothing says them.

    Raises:
        ValueError: shapes, classes or numbers of names that are none of these.
    """

    entries: Tensor
    class_of: Tensor | None = None
    names: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if self.entries.ndim != 2:
            raise ValueError(f'entries: expected (E, D), found {tuple(self.entries.shape)}.')
        self.entries = F.normalize(self.entries, dim=-1)
        if self.class_of is None:
            self.class_of = torch.arange(len(self.entries), device=self.entries.device)
        steps = self.class_of.diff(prepend=self.class_of.new_full((1,), -1))
        whole = (steps == 0) | (steps == 1)
        if len(steps) != len(self.entries) or not whole.all() or self.class_of.lt(0).any():
            raise ValueError(
                f'class_of: expected the class of each of the {len(self.entries)} entries, sorted '
                f'and without a gap, found {self.class_of.tolist()[:20]}.'
            )
        if self.names is None:
            return
        self.names = tuple(map(tuple, self.names))
        named = [place for place, group in enumerate(self.names) for _ in group]
        if named != self.class_of.tolist():
            raise ValueError(
                f'names: expected one for each of the {len(self.entries)} entries, found '
                f'{len(named)} in {len(self.names)} classes.'
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.class_of[-1]) + 1 if len(self.class_of) else 0

    @property
    def mean(self) -> Tensor:
        """(C, D) unit rows, of each class the mean of its entries; alone it stays as it is."""
        count = self.num_classes
        if len(self.entries) == count:
            return self.entries
        total = self.entries.new_zeros(count, self.entries.shape[1])
        return F.normalize(total.index_add_(0, self.class_of, self.entries), dim=-1)
