"""Tileable noise, made once per process from a fixed seed and looked up with offsets."""

from functools import lru_cache

import cv2
import numpy as np

SIZE = 512
MASK = SIZE - 1
WIDE = 64
_SEED = 20240917  # of the noise bank only; scenes have their own seeds


def _lattice(rng, cells: int) -> np.ndarray:
    """Periodic smooth noise of ``cells`` cells in [0, 1], (SIZE, SIZE) float32."""
    values = rng.random((cells, cells)).astype(np.float32)
    padded = np.pad(values, 2, mode='wrap')
    step = SIZE // cells
    if step == 1:
        return values
    grown = cv2.resize(padded, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return grown[2 * step : -2 * step, 2 * step : -2 * step]


def _standard(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((tile - tile.mean()) / tile.std(), np.float32)


@lru_cache(maxsize=3)
def _doubled(name: str) -> np.ndarray:
    """A tile next to itself both ways, so that any cut up to SIZE is a view."""
    tile = bank()[name]
    return np.tile(tile, (2, 2, 1)[: tile.ndim])


@lru_cache(maxsize=1)
def bank() -> dict:
    """Tiles (SIZE, SIZE) float32 of mean 0 and deviation 1.

    ``surface``: many octaves with strong grain, for materials; ``cloud``: smooth, for sky, wear
    and puddles; ``grain``: (SIZE, SIZE, 3), bell-shaped white noise, for the sensor.
    """
    rng = np.random.default_rng(_SEED)
    surface = sum(
        _lattice(rng, c) * w
        for c, w in ((8, 0.5), (16, 0.5), (32, 0.6), (64, 0.8), (128, 0.9), (256, 1.0), (512, 0.9))
    )
    cloud = sum(
        _lattice(rng, c) * w for c, w in ((4, 1.0), (8, 0.6), (16, 0.35), (32, 0.2), (64, 0.1))
    )
    grain = sum(rng.random((SIZE, SIZE, 3)) for _ in range(6))
    return {'surface': _standard(surface), 'cloud': _standard(cloud), 'grain': _standard(grain)}


def lookup(name: str, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Values of a tile at texel coordinates, bilinear, wrapping around; the shape of ``s``."""
    s, t = (np.asarray(a, np.float32) for a in (s, t))
    s, t = (a - np.floor(a * (1 / SIZE)) * SIZE for a in (s, t))
    flat = (WIDE, -1) if s.size % WIDE == 0 else (-1, 1)  # remap takes no long rows
    values = cv2.remap(_doubled(name), s.reshape(flat), t.reshape(flat), cv2.INTER_LINEAR)
    return values.reshape(s.shape)


def window(name: str, shape, rng, scale: float = 1.0) -> np.ndarray:
    """A read-only (H, W) or (H, W, 3) cut of a tile at a random place, enlarged ``scale`` times."""
    height, width = (int(np.ceil(n / scale)) for n in shape)
    top, left = int(rng.random() * SIZE), int(rng.random() * SIZE)
    if max(height, width) <= SIZE:
        cut = _doubled(name)[top : top + height, left : left + width]
    else:
        rows, columns = (np.arange(height) + top) & MASK, (np.arange(width) + left) & MASK
        cut = bank()[name][rows[:, None], columns]
    if scale != 1.0:
        cut = cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return cut


def joints(s, t, width, height) -> np.ndarray:
    """True on the joints of a running bond with bricks of ``width`` by ``height``."""
    row = np.floor(t / height)
    across = s / width + 0.5 * (row.astype(np.int32) & 1)
    across -= np.floor(across)
    return (across < 0.1) | (t / height - row < 0.14)


def panes(s, t, rows: np.ndarray):
    """Windows of a facade.

    Args:
        s, t: (N,) metres along and up the facade.
        rows: (N, 10) window rows as made by `frontage.window_row`.

    Returns:
        ``inside`` (N,) bool and ``chance`` (N,) float in [0, 1), one value per pane.
    """
    column = np.floor(s / rows[:, 0])
    floor = np.floor((t - rows[:, 7]) / rows[:, 1])
    across = s / rows[:, 0] - column
    up = (t - rows[:, 7]) / rows[:, 1] - floor
    inside = (np.abs(across - 0.5) * 2 < rows[:, 2]) & (up < rows[:, 3]) & (floor >= 0)
    inside &= ~((np.abs(across - 0.5) < 0.03) & (rows[:, 2] < 1))  # glazing bar
    mixed = column.astype(np.int32) * 7919 + floor.astype(np.int32) * 104729
    mixed = (mixed + (rows[:, 9] * 65536).astype(np.int32)) * 48271
    return inside, ((mixed >> 7) & 1023).astype(np.float32) / 1024
