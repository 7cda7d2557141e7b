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


def parse(rles: Sequence[bytes], size: tuple[int, int], source: str = 'RLE') -> Runs:
    """Read N compressed run lengths.

    Args:
        rles: COCO's compressed counts.
        size: (H, W) of the image.
        source: what an error calls them.

    Raises:
        UserError: something is no run length code, or does not fill the image.
    """
    height, width = size
    lengths = np.fromiter((len(each) for each in rles), dtype=np.int64, count=len(rles))
    raw = np.frombuffer(b''.join(rles), dtype=np.uint8).astype(np.int64) - 48
    ends = np.cumsum(lengths)
    if not len(rles):
        empty = np.zeros(0, dtype=np.int64)
        return Runs(size, 0, empty, empty, empty)
    if lengths.min() == 0:
        _refuse(source, int(lengths.argmin()), 'it is empty')
    if raw.min() < 0 or raw.max() > 63:
        wrong = int(np.flatnonzero((raw < 0) | (raw > 63))[0])
        _refuse(source, _owner(ends, wrong), 'it has a character that the code does not know')
    values, number = _numbers(raw, ends, source)
    counts, first = _undo_differences(values, number)
    total = np.concatenate([[0], np.cumsum(counts)])
    sums = total[first[1:]] - total[first[:-1]]
    if counts.min() < 0:
        wrong = int(np.flatnonzero(counts < 0)[0])
        _refuse(source, _owner(first[1:], wrong), 'it has a run of negative length')
    if (sums != height * width).any():
        wrong = int(np.flatnonzero(sums != height * width)[0])
        _refuse(source, wrong, f'it is of {sums[wrong]} pixels and the image has {height}x{width}')
    index = np.arange(len(counts)) - np.repeat(first[:-1], np.diff(first))
    mask = np.flatnonzero((index & 1) & (counts > 0))
    owner = np.repeat(np.arange(len(rles)), np.diff(first))[mask]
    start = total[mask] - total[first[owner]]
    return Runs(size, len(rles), owner, start, start + counts[mask])


def _numbers(raw: np.ndarray, ends: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (T,) in groups of five bits, and where those of each mask begin (N + 1,)."""
    last = np.flatnonzero(raw < 32)  # the bit 32 says that the number goes on
    open_ended = np.flatnonzero(raw[ends - 1] >= 32)
    if len(open_ended):
        _refuse(source, int(open_ended[0]), 'it breaks off in the middle of a number')
    begin = np.concatenate([[0], last[:-1] + 1])
    groups = last - begin + 1
    if groups.max() > _GROUPS:
        _refuse(source, _owner(ends, int(begin[groups.argmax()])), 'it has an endless number')
    values = raw[begin] & 31
    for k in range(1, int(groups.max())):
        more = np.flatnonzero(groups > k)
        values[more] |= (raw[begin[more] + k] & 31) << (5 * k)
    negative = np.flatnonzero(raw[last] & 16)
    values[negative] -= np.int64(1) << (5 * groups[negative])
    return values, np.concatenate([[0], np.searchsorted(last, ends)])


def _undo_differences(values: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all runs (T,), and where those of each mask begin (N + 1,)."""
    per_mask = np.diff(first)
    begin = np.repeat(first[:-1], per_mask)
    index = np.arange(len(values)) - begin
    odd = (index & 1).astype(bool)
    counts = np.empty_like(values)
    for mine, parts in ((odd, values * odd), (~odd, values * (~odd & (index > 0)))):
        total = np.concatenate([[0], np.cumsum(parts)])
        counts[mine] = (total[1:] - total[begin])[mine]
    counts[first[:-1]] = values[first[:-1]]
    return counts, first


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


def region_bits(runs: Runs, boxes: np.ndarray, cells: int) -> np.ndarray:
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


@dataclass(frozen=True, eq=False)
class Atoms:
    """The partition of an image by which of N masks cover a pixel.

    A union of masks is a union of atoms, and areas, overlaps and merged maps are small products
    with `cover` and `areas`, with no mask painted: `cover.T[atoms.index]` would be all N masks.

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
        pixels = height * width
        # A pixel's key is the sum of random numbers of its masks, which two different sets of
        # masks share with a chance of 2^-64.
        numbers = np.random.default_rng(0).integers(0, 2**64, runs.count, dtype=np.uint64)
        change = np.zeros(pixels + 1, dtype=np.uint64)
        np.add.at(change, runs.start, numbers[runs.owner])
        np.subtract.at(change, runs.stop, numbers[runs.owner])
        change[0] += np.uint64(1)  # so that a piece begins here
        begin = np.flatnonzero(change[:pixels])  # of pieces of the image in one atom each
        keys = np.cumsum(change[begin])
        _, first, atom = np.unique(keys, return_index=True, return_inverse=True)
        lengths = np.diff(np.append(begin, pixels))
        index = np.repeat(atom.ravel().astype(np.int32), lengths).reshape(width, height)
        areas = np.zeros(len(first), dtype=np.int64)
        np.add.at(areas, atom.ravel(), lengths)
        # A mask covers an atom if one of its runs holds the atom's first pixel.
        samples = np.argsort(first)  # atoms in the order of their first pixels
        rank = np.zeros(pixels + 1, dtype=np.int64)
        rank[begin[first] + 1] = 1
        rank = np.cumsum(rank)  # how many first pixels lie before a position
        low, high = rank[runs.start], rank[runs.stop]
        held = np.flatnonzero(high > low)
        steps = np.zeros((runs.count, len(first) + 1), dtype=np.int8)
        np.add.at(steps, (runs.owner[held], low[held]), 1)
        np.subtract.at(steps, (runs.owner[held], high[held]), 1)
        cover = np.empty((runs.count, len(first)), dtype=bool)
        cover[:, samples] = np.cumsum(steps[:, :-1], axis=1, dtype=np.int8) > 0
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


def _owner(ends: np.ndarray, position: int) -> int:
    return int(np.searchsorted(ends, position, side='right'))


def _refuse(source: str, index: int, reason: str) -> None:
    raise UserError(
        f'{source} {index} is no compressed run length code of COCO: {reason}; expected the '
        "'counts' of pycocotools.mask.encode for this image."
    )
