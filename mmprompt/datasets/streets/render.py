"""From a scene to per-pixel surface values (`Buffers`), the same for every condition."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from mmprompt.datasets.streets import textures
from mmprompt.datasets.streets.canvas import GROUND, SCREEN, SIDE, Camera
from mmprompt.datasets.streets.scene import Scene

(NOISE, SCALE, GRID_W, GRID_H, GAIN, WINDOW, FACES, UPNESS, EMIT, GLOSS) = range(3, 13)
PLANE, KIND, SHADE = 13, 16, 17


class Buffers(NamedTuple):
    """Images of one scene before light and weather, float32 unless said otherwise.

    Attributes:
        albedo: (3, H, W) RGB in [0, 1], textured.
        depth: (H, W) metres, 400 on the sky.
        faces: (H, W) int8 index up, left, right, back.
        upness: (H, W) how much a surface looks up.
        emit: (H, W) light of its own; lit windows included.
        gloss: (H, W) share of mirrored sky.
        ground, sky: (H, W) bool.
        shadow, contact: (H, W) in [0, 1] on the ground.
        x, y: (H, W) world metres to the right and up.
    """

    albedo: np.ndarray
    depth: np.ndarray
    faces: np.ndarray
    upness: np.ndarray
    emit: np.ndarray
    gloss: np.ndarray
    ground: np.ndarray
    sky: np.ndarray
    shadow: np.ndarray
    contact: np.ndarray
    x: np.ndarray
    y: np.ndarray
    camera: Camera
    lamps: list
    scene: Scene


@lru_cache(maxsize=2)
def _grid(height: int, width: int):
    v, u = np.mgrid[:height, :width].astype(np.float32)
    return u.ravel(), v.ravel()


def labels(scene: Scene):
    """The label maps: (H, W) uint8 of trainIds with 255 ignored, (H, W) uint16 Cityscapes ids."""
    canvas = scene.canvas
    part = canvas.label
    return (np.array(canvas.train_ids, np.uint8)[part], np.array(canvas.ids, np.uint16)[part])


def buffers(scene: Scene, rng: np.random.Generator) -> Buffers:
    """Look every pixel's part up and texture it in world coordinates.

    Args:
        scene: as laid out.
        rng: chance of the materials; shared by all conditions.
    """
    canvas, camera = scene.canvas, scene.canvas.camera
    shape = camera.size
    table = np.array(canvas.rows, np.float32)
    part = canvas.seen.ravel().astype(np.intp)
    u, v = _grid(*shape)

    def column(k):
        return table[:, k].take(part)

    depth = 1 / np.clip(column(PLANE) * u + column(PLANE + 1) * v + column(PLANE + 2), 1 / 400, 2)
    kind = table[:, KIND].astype(np.int8).take(part)
    sky, ground = part == 0, kind == GROUND
    scaled = depth / camera.focal
    x, y = (u - camera.centre) * scaled, camera.height + (camera.horizon - v) * scaled
    s = np.where(kind == SIDE, depth, x)
    t = np.where(ground, depth, y)
    screen = kind == SCREEN
    s, t = np.where(screen, u * 0.02, s), np.where(screen, v * 0.02, t)
    gain = _texture(table, part, s, t, scaled, rng)
    shade = column(SHADE) * u + column(SHADE + 1) * v + column(SHADE + 2)
    gain *= shade
    albedo = table[:, :3].T.take(part, axis=1) * gain
    emit, gloss = column(EMIT), column(GLOSS)
    _windows(canvas, table, part, s, t, scaled, albedo, emit, gloss)
    np.clip(albedo, 0, 1, out=albedo)
    shadow = cv2.blur(canvas.shadow, (3, 3)).astype(np.float32) * (1 / 255)
    contact = cv2.GaussianBlur(canvas.contact, (7, 7), 0).astype(np.float32) * (1 / 255)
    ground = ground.reshape(shape)
    return Buffers(
        albedo.reshape(3, *shape),
        depth.reshape(shape),
        table[:, FACES].astype(np.int8).take(part).reshape(shape),
        column(UPNESS).reshape(shape),
        emit.reshape(shape),
        gloss.reshape(shape),
        ground,
        sky.reshape(shape),
        shadow * ground,
        contact * ground,
        x.reshape(shape),
        y.reshape(shape),
        camera,
        canvas.lamps,
        scene,
    )


def _texture(table, part, s, t, scaled, rng) -> np.ndarray:
    """Brightness (N,) of value noise, wear and joints."""
    scale = table[:, SCALE].take(part)
    noise = textures.lookup('surface', s * scale + rng.random() * 512, t * scale + part)
    wear = textures.lookup('cloud', s * 11 + rng.random() * 512, t * 11 + part * 17)
    amplitude = table[:, NOISE].take(part)
    gain = 1 + amplitude * (noise + 0.7 * wear)
    width = table[:, GRID_W].take(part)
    at = np.flatnonzero(width > 0)
    if at.size:
        width, rows = width[at], part[at]
        height = table[:, GRID_H][rows]
        near = np.clip(np.minimum(width, height) / (2.5 * scaled[at]) - 0.6, 0, 1)  # no aliasing
        lines = textures.joints(s[at], t[at], width, height)
        gain[at] *= 1 + lines * near * table[:, GAIN][rows]
    return np.maximum(gain, 0.15)


def _windows(canvas, table, part, s, t, scaled, albedo, emit, gloss) -> None:
    """Panes of facades, in place; ``emit`` of a pane is positive where somebody is at home."""
    if not canvas.windows:
        return
    at = np.flatnonzero((table[:, WINDOW] >= 0).take(part))
    if not at.size:
        return
    rows = np.array(canvas.windows, np.float32)[table[:, WINDOW].astype(np.intp)[part[at]]]
    inside, chance = textures.panes(s[at], t[at], rows)
    at, rows, chance = at[inside], rows[inside], chance[inside]
    share = np.clip(rows[:, 1] * 0.5 / scaled[at] - 0.5, 0.25, 1)
    tone = 0.7 + 0.6 * chance
    for channel in range(3):
        plane = albedo[channel]
        plane[at] += share * (rows[:, 4 + channel] * tone - plane[at])
    emit[at] = np.where(chance < rows[:, 8], 0.55 + 0.4 * chance, 0)
    gloss[at] = 0.3 * share
