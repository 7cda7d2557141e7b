"""Objects that no single patch covers, as a sheet of pictures (Figs. 10 and 11)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mmprompt.common.files import atomic_file
from mmprompt.common.patches import PatchSet
from mmprompt.common.rle import Runs

CELL, GAP, CAPTION = 180, 6, 16  # pixels
YELLOW, GREEN = (255, 214, 0), (0, 200, 80)


class Uncovered(NamedTuple):
    """One object; IoU with what patches make of it, see `proposal_quality`."""

    image: int  # number in its split
    unit: int  # row of its image's units
    label: int
    box: tuple[int, int, int, int]  # xyxy
    area: int
    best: float
    parts: float
    greedy: float
    covered: float


def paint(runs: Runs, unit: int) -> np.ndarray:
    """One mask (H, W) bool of many."""
    height, width = runs.size
    change = np.zeros(height * width + 1, np.int8)
    first = runs.first()
    mine = slice(first[unit], first[unit + 1])
    np.add.at(change, runs.start[mine], 1)
    np.add.at(change, runs.stop[mine], -1)
    return (np.cumsum(change[:-1]) > 0).reshape(width, height).T


def window(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around a box, half as much again on each side, inside the image where it fits."""
    left, top, right, bottom = box
    side = max(2 * (right - left), 2 * (bottom - top), 48)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    x = min(max(x, 0), max(size[1] - side, 0))
    y = min(max(y, 0), max(size[0] - side, 0))
    return x, y, min(x + side, size[1]), min(y + side, size[0])


def draw_object(
    picture: Image.Image, true: np.ndarray, patches: PatchSet, box: Sequence[int], caption: str
) -> Image.Image:
    """Two cells side by side: the object with its outline; the patches around it in colours.

    Args:
        picture: RGB, the original image.
        true: (H, W) bool.
        patches: of the image.
        box: xyxy of the object.
        caption: a line below.
    """
    x1, y1, x2, y2 = window(box, patches.size)
    scale = CELL / max(x2 - x1, y2 - y1)
    size = tuple(max(1, round(side * scale)) for side in (x2 - x1, y2 - y1))

    def cell(mask: np.ndarray) -> np.ndarray:
        part = Image.fromarray(mask[y1:y2, x1:x2])
        return np.asarray(part.resize(size, Image.Resampling.NEAREST))

    pixels = np.asarray(picture.crop((x1, y1, x2, y2)).resize(size, Image.Resampling.BILINEAR))
    mask = cell(true)
    inner = np.pad(mask, 2)
    for _ in range(2):  # the outline is two pixels wide, so that the box leaves one of them
        inner = inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
    outlined = np.where((mask & ~inner)[..., None], GREEN, pixels)
    left, top, right, bottom = patches.boxes.T
    near = np.flatnonzero((left < x2) & (right > x1) & (top < y2) & (bottom > y1))
    near = near[np.argsort(-patches.areas[near], kind='stable')]
    shaded = pixels
    for i, patch in zip(near.tolist(), patches.select(near).decode()):
        colour = np.random.default_rng(i).integers(30, 256, 3)
        shaded = np.where(cell(patch)[..., None], 0.45 * pixels + 0.55 * colour, shaded)
    sheet = Image.new('RGB', (2 * CELL + 2, CELL + CAPTION), 'white')
    corners = [(side - start) * scale for side, start in zip(box, (x1, y1, x1, y1))]
    corners = [min(corner, side - 1) for corner, side in zip(corners, size * 2)]
    for n, part in enumerate((outlined, shaded)):
        part = Image.fromarray(part.astype(np.uint8))
        ImageDraw.Draw(part).rectangle(corners, outline=YELLOW)
        sheet.paste(part, (n * (CELL + 2), 0))
    ImageDraw.Draw(sheet).text((2, CELL + 2), caption, fill='black')
    return sheet


def spread(objects: Sequence[Uncovered], number: int) -> list[Uncovered]:
    """Some of them from the largest to the smallest, evenly by rank."""
    order = sorted(objects, key=lambda o: -o.area)
    if len(order) <= number:
        return order
    return [order[i] for i in np.linspace(0, len(order) - 1, number).round().astype(int)]


def write_sheet(pictures: Sequence[Image.Image], path: str | Path, columns: int = 4) -> None:
    """Arrange pictures of one size in rows and write them as PNG."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    sheet = Image.new('RGB', size, 'white')
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet.paste(picture, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    with atomic_file(path) as stream:
        sheet.save(stream, 'PNG')
