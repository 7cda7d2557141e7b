"""Maps brought to the size of an answer a tile at a time, so that no answer is too large.

Every step from mask logits to the answer (bilinear, crop, flip, bicubic with antialiasing) is
linear and acts on rows and columns apart. So there is one small matrix per axis, made by sending
the identity through `F.interpolate`, and a tile of the answer is ``R[rows] @ mask @ C[columns].T``,
in which only a band of either matrix is not zero.

Notation: Q maps, (h, w) cells of a map, (H, W) pixels of the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_STRIDE = 4
#: Values of one tile over all its channels: 1 MiB of float32, which stays in a core's cache.
TILE_VALUES = 1 << 18
GPU_TILE = 8  # tiles in one on a GPU, where it is the number of calls that costs
TILE_COLUMNS = 128  # narrow tiles meet few columns of the source
FLIPS = {None: (False, False), 'horizontal': (False, True), 'vertical': (True, False)}
FLIPS['diagonal'] = (True, True)

Tile = tuple[slice, slice, Tensor]


class _Axis(NamedTuple):
    """What one axis of the answer is made of."""

    matrix: Tensor  # (out, in), double, CPU
    first: tuple[int, ...]  # of each row: its first value that is not zero
    last: tuple[int, ...]

    def band(self, part: slice) -> slice:
        """The sources of a part of the answer."""
        return slice(min(self.first[part]), max(self.last[part]) + 1)


def tile_values(device: torch.device) -> int:
    """Values of one tile over all its channels."""
    return TILE_VALUES if device.type == 'cpu' else GPU_TILE * TILE_VALUES


def _axis(identity: Tensor) -> _Axis:
    """Of the picture (1, 1, out, in) of the identity, its columns untouched."""
    matrix = identity[0, 0].contiguous()  # (out, in)
    used = (matrix != 0).int()
    last = matrix.shape[1] - 1 - used.flip(1).argmax(1)
    return _Axis(matrix, tuple(used.argmax(1).tolist()), tuple(last.tolist()))


def _interpolate(x: Tensor, size: int, mode: str, align_corners: bool) -> Tensor:
    antialias = mode == 'bicubic'
    return F.interpolate(
        x, size=(size, x.shape[3]), mode=mode, align_corners=align_corners, antialias=antialias
    )


@functools.lru_cache(maxsize=16)
def _mask_axis(cells: int, size: int, output: int, flip: bool, align_corners: bool) -> _Axis:
    with torch.inference_mode(False), torch.no_grad():
        x = torch.eye(cells, dtype=torch.float64, device='cpu')[None, None]
        x = _interpolate(x, MASK_STRIDE * cells, 'bilinear', align_corners)[:, :, :size]
        x = x.flip(2) if flip else x
        # At equal sizes the bicubic kernel is the identity.
        return _axis(x if size == output else _interpolate(x, output, 'bicubic', align_corners))


@functools.lru_cache(maxsize=4)
def _score_axis(size: int, output: int, flip: bool, align_corners: bool) -> _Axis:
    with torch.inference_mode(False), torch.no_grad():
        x = torch.eye(size, dtype=torch.float64, device='cpu')[None, None]
        x = x.flip(2) if flip else x
        return _axis(x if size == output else _interpolate(x, output, 'bilinear', align_corners))


class UpsampledMaps:
    """Q maps at the size of the answer, computed where and when they are asked for.

    Made by `upsample_masks` and `resize_scores`. Half precision is computed in float32.

    Attributes:
        shape: (Q, H, W).
    """

    def __init__(self, maps: Tensor, rows: _Axis, columns: _Axis) -> None:
        self.maps = maps.float() if maps.element_size() < 4 else maps
        self._rows, self._columns = rows, columns
        self.shape = (len(maps), len(rows.first), len(columns.first))

    @property
    def device(self) -> torch.device:
        return self.maps.device

    def __getitem__(self, queries: Tensor | slice) -> UpsampledMaps:
        """Some of the maps, by slice, indices (K,) or booleans (Q,)."""
        return UpsampledMaps(self.maps[queries], self._rows, self._columns)

    def tiles(self, channels: int = 0) -> Iterator[Tile]:
        """(rows, columns, values (Q, rows, columns)) of every tile, in reading order.

        Args:
            channels: what the caller makes of each pixel, if more than Q values: tiles are so
                small that this stays under `tile_values` as well.
        """
        count, height, width = self.shape
        if not count:
            return
        like = self.maps
        by_row, by_column = (axis.matrix.to(like) for axis in (self._rows, self._columns))
        cells = max(1, tile_values(like.device) // max(count, channels))
        columns = _slices(width, min(cells, TILE_COLUMNS))
        bands = [self._columns.band(part) for part in columns]
        widest = max(band.stop - band.start for band in bands)
        for rows in _slices(height, cells // max(widest, columns[0].stop)):
            source = self._rows.band(rows)
            for part, band in zip(columns, bands):
                with torch.autocast(like.device.type, enabled=False):
                    x = by_row[rows, source] @ like[:, source, band]  # (Q, rows, band)
                    yield rows, part, x @ by_column[part, band].t()

    def dense(self) -> Tensor:
        """All of them, (Q, H, W)."""
        whole = self.maps.new_empty(self.shape)
        for rows, columns, values in self.tiles():
            whole[:, rows, columns] = values
        return whole


class DenseMaps:
    """The same interface over a tensor (Q, H, W) that is already there; tiles are views."""

    def __init__(self, maps: Tensor) -> None:
        self.maps, self.shape, self.device = maps, tuple(maps.shape), maps.device

    def __getitem__(self, queries: Tensor | slice) -> DenseMaps:
        return DenseMaps(self.maps[queries])

    def tiles(self, channels: int = 0) -> Iterator[Tile]:
        """Bands of whole rows; see `UpsampledMaps.tiles`."""
        count, height, width = self.shape
        if not count:
            return
        for rows in _slices(height, tile_values(self.device) // (max(count, channels) * width)):
            yield rows, slice(0, width), self.maps[:, rows]


Maps = UpsampledMaps | DenseMaps


def as_maps(maps: Tensor | Maps) -> Maps:
    """A tensor (Q, H, W) as maps with tiles."""
    return DenseMaps(maps) if isinstance(maps, Tensor) else maps


def upsample_masks(
    masks: Tensor,
    size: tuple[int, int],
    output_size: tuple[int, int] | None = None,
    flip: str | None = None,
    align_corners: bool = False,
) -> UpsampledMaps:
    """Mask logits at stride 4 -> at the size of the answer, as SEEM's inference brings them there.

    Bilinear to the padded input size, cut to the image, then bicubic with antialiasing.

    Args:
        masks: (Q, h, w) mask logits.
        size: (H, W) of the image before padding.
        output_size: (H, W) of the answer; None means `size`.
        flip: 'horizontal', 'vertical' or 'diagonal' turns a mirrored image back, before the last
            step.
        align_corners: of both steps.
    """
    output_size = output_size or size
    axes = [
        _mask_axis(cells, int(own), int(out), turned, align_corners)
        for cells, own, out, turned in zip(masks.shape[1:], size, output_size, FLIPS[flip])
    ]
    return UpsampledMaps(masks, *axes)


def resize_scores(
    scores: Tensor,
    output_size: tuple[int, int] | None = None,
    flip: str | None = None,
    align_corners: bool = False,
) -> UpsampledMaps:
    """Scores (C, h, w) -> bilinearly at the size of the answer, as MMSegmentation brings them."""
    size = scores.shape[1:]
    axes = [
        _score_axis(own, int(out), turned, align_corners)
        for own, out, turned in zip(size, output_size or size, FLIPS[flip])
    ]
    return UpsampledMaps(scores, *axes)


def _slices(length: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
