"""Run lengths of binary masks, many masks at once, without a Python loop over runs.

The compressed run lengths are COCO's (`pycocotools`): pixels go column by column, runs alternate
between background and mask beginning with background, from the fourth on a run is written as its
difference to the one two before, and a number is written in groups of five bits.

Notation: N masks, R runs of masks (background runs are left out), (H, W) pixels of an image; a
position is x * H + y.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmprompt.common.errors import UserError

_GROUPS = 8  # of five bits: far beyond the pixels of any image


class Runs(NamedTuple):
    """The runs of N masks, mask after mask, those of a mask in order.

    Positions are of the image's pixels, column by column; a run may go on in the next column.
    """

    size: tuple[int, int]  # (H, W)
    count: int  # N
    owner: np.ndarray  # (R,) int64: which mask
    start: np.ndarray  # (R,) int64: its first position
    stop: np.ndarray  # (R,) int64: the position after its last

    def areas(self) -> np.ndarray:
        """Pixels of each mask, (N,) int64."""
        total = np.concatenate([[0], np.cumsum(self.stop - self.start)])
        first = self.first()
        return total[first[1:]] - total[first[:-1]]

    def first(self) -> np.ndarray:
        """Where the runs of each mask begin, (N + 1,) int64; the last entry is R."""
        return np.searchsorted(self.owner, np.arange(self.count + 1))

    def boxes(self) -> np.ndarray:
        """Tight boxes (N, 4) int64 xyxy, with x2 and y2 behind the last pixel; 0 if empty."""
        height = self.size[0]
        boxes = np.zeros((self.count, 4), dtype=np.int64)
        first = self.first()
        some = np.flatnonzero(first[1:] > first[:-1])
        if not len(some):
            return boxes
        at = first[some]
        left, top = np.divmod(self.start, height)
        right, bottom = np.divmod(self.stop - 1, height)
        wraps = right > left  # such a run touches the last row and the first
        top[wraps], bottom[wraps] = 0, height - 1
        boxes[some, 0] = left[at]
        boxes[some, 1] = np.minimum.reduceat(top, at)
        boxes[some, 2] = right[first[some + 1] - 1] + 1
        boxes[some, 3] = np.maximum.reduceat(bottom, at) + 1
        return boxes

    def select(self, index: np.ndarray) -> 'Runs':
        """The runs of some masks (M,), in the order of the index."""
        first = self.first()
        lengths = np.diff(first)[index]
        shift = first[:-1][index] - np.cumsum(lengths) + lengths
        at = np.arange(lengths.sum()) + np.repeat(shift, lengths)
        owner = np.repeat(np.arange(len(index)), lengths)
        return Runs(self.size, len(index), owner, self.start[at], self.stop[at])


def parse(rles: Sequence[bytes], size: tuple[int, int], source: str = 'RLE') -> Runs:
    """Read N compressed run lengths.

    Args:
        rles: COCO's compressed counts.
        size: (H, W) of the image.
        source: what an error calls them.

    Raises:
        UserError: something is no run length code, or does not fill the image.
    """
    lengths = np.fromiter((len(each) for each in rles), dtype=np.int64, count=len(rles))
    raw = np.frombuffer(b''.join(rles), dtype=np.uint8).view(np.int8) - np.int8(48)
    ends = np.cumsum(lengths)
    if not len(rles):
        empty = np.zeros(0, dtype=np.int64)
        return Runs(size, 0, empty, empty, empty)
    if lengths.min() == 0:
        _refuse(source, int(lengths.argmin()), 'it is empty')
    if raw.min() < 0 or raw.max() > 63:
        wrong = int(np.flatnonzero((raw < 0) | (raw > 63))[0])
        _refuse(source, _owner(ends, wrong), 'it has a character that the code does not know')
    values, first = _numbers(raw, ends, source)
    runs = _positions(values, first, size, source)
    if len(runs.start) and (runs.stop == runs.start).any():  # allowed, though nobody writes it
        some = np.flatnonzero(runs.stop > runs.start)
        runs = runs._replace(owner=runs.owner[some], start=runs.start[some], stop=runs.stop[some])
    return runs


def _numbers(raw: np.ndarray, ends: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (T,) in groups of five bits, and where those of each mask begin (N + 1,)."""
    last = np.flatnonzero(raw < 32)  # the bit 32 says that the number goes on
    open_ended = np.flatnonzero(raw[ends - 1] >= 32)
    if len(open_ended):
        _refuse(source, int(open_ended[0]), 'it breaks off in the middle of a number')
    groups = np.diff(last, prepend=-1)
    most = int(groups.max())
    if most > _GROUPS:
        _refuse(source, _owner(ends, int(last[groups.argmax()])), 'it has an endless number')
    values = ((raw[last] ^ 16) - 16).astype(np.int64)  # the last group is the highest, with a sign
    for k in range(1, most):
        more = np.flatnonzero(groups > k)
        values[more] = values[more] << 5 | (raw[last[more] - k] & 31)
    return values, np.concatenate([[0], np.searchsorted(last, ends)])


def _positions(values: np.ndarray, first: np.ndarray, size: tuple[int, int], source: str) -> Runs:
    """Runs, of length 0 too, of the numbers (T,) and where those of each mask begin (N + 1,)."""
    count, pixels = len(first) - 1, size[0] * size[1]
    lead, rest = values[first[:-1]], np.diff(first) - 1
    # Behind the first number lie pairs of a run and the background after it, each the difference
    # to the one in the pair before. A mask may lack its last background.
    pairs = (rest + 1) // 2
    begin = np.concatenate([[0], np.cumsum(pairs)])
    table = np.zeros((begin[-1], 2), dtype=np.int64)
    shift = 2 * begin[:-1] - first[:-1] - 1
    behind = np.ones(len(values), dtype=bool)
    behind[first[:-1]] = False
    place = np.arange(len(values)) + np.repeat(shift, rest + 1)
    table.ravel()[place[behind]] = values[behind]
    some = np.flatnonzero(pairs)
    start = begin[:-1][some]
    lengths = _cumulated(table, start)
    lacking = some[rest[some] % 2 == 1]
    lengths[begin[1:][lacking] - 1, 1] = 0
    wrong = np.flatnonzero((lengths < 0).any(axis=1))
    if (lead < 0).any() or len(wrong):
        at = np.flatnonzero(lead < 0) if not len(wrong) else [_owner(begin[1:], wrong[0])]
        _refuse(source, int(at[0]), 'it has a run of negative length')
    steps = lengths.sum(axis=1)
    steps[start] += lead[some]
    after = _cumulated(steps, start)  # where the background after a run ends
    total = lead.copy()
    total[some] = after[begin[1:][some] - 1]
    if (total != pixels).any():
        at = int(np.flatnonzero(total != pixels)[0])
        _refuse(source, at, f'it is of {total[at]} pixels and the image has {size[0]}x{size[1]}')
    stop = after - lengths[:, 1]
    owner = np.repeat(np.arange(count), pairs)
    return Runs(size, count, owner, stop - lengths[:, 0], stop)


def _cumulated(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Sums of the rows up to each, which begin anew at `start`. The rows are used up."""
    if len(start):
        values[start[1:]] -= np.add.reduceat(values, start, axis=0)[:-1]
    return np.cumsum(values, axis=0)


def cut(runs: Runs, rect: tuple[int, int, int, int]) -> Runs:
    """What is left of masks inside a rectangle, in the frame of the whole image.

    Args:
        runs: of N masks.
        rect: x1 y1 x2 y2 in whole pixels inside the image, x2 and y2 behind the last.
    """
    height = runs.size[0]
    left, top, right, bottom = rect
    start = np.maximum(runs.start, left * height)
    stop = np.minimum(runs.stop, right * height)
    owner = runs.owner
    if top > 0 or bottom < height:  # a run that goes on in the next column falls apart
        column = start // height
        pieces = np.maximum((stop - 1) // height - column + 1, 0) * (stop > start)
        which = np.repeat(np.arange(len(owner)), pieces)
        column = column[which] + np.arange(len(which)) - (np.cumsum(pieces) - pieces)[which]
        start = np.maximum(start[which], column * height + top)
        stop = np.minimum(stop[which], column * height + bottom)
        owner = owner[which]
    kept = np.flatnonzero(stop > start)
    return runs._replace(owner=owner[kept], start=start[kept], stop=stop[kept])


def runs_of_map(labels: np.ndarray) -> tuple[Runs, np.ndarray]:
    """The masks of the values of a map (H, W), in their order, and these values (N,).

    One pass over the map, however many values it has.
    """
    line = labels.T.ravel()  # column by column, as COCO goes
    start = np.flatnonzero(np.concatenate([[True], line[1:] != line[:-1]]))
    stop = np.concatenate([start[1:], [line.size]])
    values, owner = np.unique(line[start], return_inverse=True)
    order = np.argsort(owner, kind='stable')
    return Runs(labels.shape, len(values), owner[order], start[order], stop[order]), values


def encode_runs(runs: Runs) -> list[bytes]:
    """Write the runs of N masks as compressed counts, byte for byte as `pycocotools` does.

    Runs of a mask that touch are written as one.
    """
    runs = _joined(runs)
    height, width = runs.size
    first, pixels = runs.first(), height * width
    per_mask = np.diff(first)
    # Every mask: background before each run, the run, and what is left behind the last one.
    ends_open = np.ones(runs.count, dtype=bool)
    some = per_mask > 0
    ends_open[some] = runs.stop[first[1:][some] - 1] < pixels
    sizes = 2 * per_mask + ends_open
    begin = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.zeros(begin[-1], dtype=np.int64)
    at = begin[runs.owner] + 2 * (np.arange(len(runs.owner)) - first[runs.owner])
    before = np.concatenate([[0], runs.stop[:-1]])
    before[first[:-1][some]] = 0
    counts[at] = runs.start - before
    counts[at + 1] = runs.stop - runs.start
    behind = np.full(runs.count, pixels, dtype=np.int64)
    behind[some] -= runs.stop[first[1:][some] - 1]
    counts[begin[1:][ends_open] - 1] = behind[ends_open]
    index = np.arange(len(counts)) - np.repeat(begin[:-1], sizes)
    values = counts.copy()
    later = np.flatnonzero(index > 2)
    values[later] -= counts[later - 2]
    return _characters(values, begin)


def _joined(runs: Runs) -> Runs:
    """The same masks without runs that touch the run before."""
    touches = (runs.owner[1:] == runs.owner[:-1]) & (runs.start[1:] == runs.stop[:-1])
    if not touches.any():
        return runs
    opens = np.concatenate([[True], ~touches])
    closes = np.concatenate([~touches, [True]])
    return runs._replace(owner=runs.owner[opens], start=runs.start[opens], stop=runs.stop[closes])


def _characters(values: np.ndarray, begin: np.ndarray) -> list[bytes]:
    """Numbers (T,) as text, cut where those of each mask begin (N + 1,)."""
    magnitude = np.where(values < 0, ~values, values)
    groups = np.ones(len(values), dtype=np.int64)
    for k in range(1, _GROUPS):
        groups += magnitude >= 1 << (5 * k - 1)
    at = np.concatenate([[0], np.cumsum(groups)])
    text = np.empty(at[-1], dtype=np.uint8)
    for k in range(int(groups.max(initial=0))):
        mine = np.flatnonzero(groups > k)
        goes_on = groups[mine] > k + 1
        text[at[mine] + k] = 48 + ((values[mine] >> (5 * k)) & 31) + 32 * goes_on
    whole, cuts = text.tobytes(), at[begin].tolist()
    return [whole[a:b] for a, b in zip(cuts, cuts[1:])]


def shared_pixels(units: Runs, masks: Runs) -> np.ndarray:
    """Pixels that each of K masks shares with each of N others of the image, (K, N) int64.

    Both may overlap among themselves. Made for few and simple units and many masks.
    """
    begin, atom, cover = _pieces(units)
    first = np.searchsorted(begin, masks.start, side='right') - 1
    met = np.searchsorted(begin, masks.stop, side='left') - first
    which = np.repeat(np.arange(len(met)), met)  # a run of a mask, for each piece that it meets
    piece = np.arange(len(which)) + np.repeat(first - np.cumsum(met) + met, met)
    begin = np.append(begin, units.size[0] * units.size[1])
    low = np.maximum(begin[piece], masks.start[which])
    high = np.minimum(begin[piece + 1], masks.stop[which])
    atoms = cover.shape[1]
    place = masks.owner[which] * atoms + atom[piece]
    pixels = np.bincount(place, weights=high - low, minlength=masks.count * atoms)
    # Whole numbers far below 2^53, so that the sums of the product are exact.
    return (cover @ pixels.reshape(masks.count, atoms).T).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Atoms:
    """The partition of an image by which of N masks cover a pixel.

    A union of masks is a union of atoms, and areas, overlaps and merged maps are small products
    with `cover` and `areas`, with no mask painted: `cover[:, atoms.index]` would be all N masks.

    Notation: A atoms, at most one of which no mask covers.
    """

    index: np.ndarray  # (H, W) int32: the atom of every pixel
    cover: np.ndarray  # (N, A) bool: whether the mask covers the atom
    areas: np.ndarray  # (A,) int64 pixels

    @classmethod
    def from_rles(cls, rles: Sequence[bytes], size: tuple[int, int]) -> 'Atoms':
        """Of N compressed counts of an image (H, W)."""
        return cls.from_runs(parse(rles, size))

    @classmethod
    def from_runs(cls, runs: Runs) -> 'Atoms':
        """Of the runs of N masks."""
        height, width = runs.size
        begin, atom, cover = _pieces(runs)
        lengths = np.diff(begin, append=height * width)
        index = np.repeat(atom.astype(np.int32), lengths).reshape(width, height)
        areas = np.bincount(atom, weights=lengths, minlength=cover.shape[1]).astype(np.int64)
        return cls(np.ascontiguousarray(index.T), cover, areas)

    def union(self, members: np.ndarray) -> np.ndarray:
        """Which atoms each of M sets of masks covers, (M, A) bool.

        Args:
            members: (M, N) bool.
        """
        return members.astype(np.float32) @ self.cover.astype(np.float32) > 0

    def masks(self, sets: np.ndarray) -> np.ndarray:
        """Paint sets of atoms (M, A) bool: masks (M, H, W) bool."""
        return sets[:, self.index]


def _pieces(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut an image where runs of N masks begin and end, into pieces that are each in one atom.

    Returns:
        begin (P,) of the pieces, position by position; the atom (P,) of each, numbered in the order
        in which they come; and which masks cover an atom, (N, A) bool.
    """
    pixels = runs.size[0] * runs.size[1]
    # The key of an atom is the sum of random numbers of its masks, which two different sets of
    # masks share with a chance of 2^-64.
    numbers = np.random.default_rng(0).integers(0, 2**64, runs.count, dtype=np.uint64)
    change = np.zeros(pixels + 1, dtype=np.uint64)
    np.add.at(change, runs.start, numbers[runs.owner])
    np.subtract.at(change, runs.stop, numbers[runs.owner])
    change[0] += np.uint64(1)  # so that a piece begins here
    begin = np.flatnonzero(change[:pixels])
    _, first, atom = np.unique(np.cumsum(change[begin]), return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    # A mask covers an atom if one of its runs holds the first pixel of the atom's first piece.
    rank = np.zeros(pixels + 1, dtype=np.int32)
    rank[begin[first] + 1] = 1
    rank = np.cumsum(rank, dtype=np.int32)  # how many of those lie before a position
    low, high = rank[runs.start], rank[runs.stop]
    held = np.flatnonzero(high > low)
    steps = np.zeros((runs.count, len(first) + 1), dtype=np.int8)
    np.add.at(steps, (runs.owner[held], low[held]), 1)
    np.subtract.at(steps, (runs.owner[held], high[held]), 1)
    cover = np.cumsum(steps, axis=1, dtype=np.int8).view(bool)[:, :-1]
    return begin, number[atom.ravel()], cover


def _owner(ends: np.ndarray, position: int) -> int:
    return int(np.searchsorted(ends, position, side='right'))


def _refuse(source: str, index: int, reason: str) -> None:
    raise UserError(
        f'{source} {index} is no compressed run length code of COCO: {reason}; expected the '
        "'counts' of pycocotools.mask.encode for this image."
    )
