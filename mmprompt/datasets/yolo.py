"""Segment labels in YOLO's text format: a line `class x y x y …` per object, sides as 1.

An image `images/train2017/a.jpg` has its label in `labels/train2017/a.txt`; no file, or an empty
one, means no label.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmprompt.common.errors import UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_EXIF_ORIENTATION = 274
#: Converters round outwards; more than this is a mistake.
_OVERSHOOT = 1e-3


class YoloImage(NamedTuple):
    """One image with its objects."""

    name: str  # path below the image folder, with forward slashes
    size: tuple[int, int]  # (H, W) as an image library loads it, turned by its EXIF tag
    classes: np.ndarray  # (K,) int64
    polygons: list[np.ndarray]  # K arrays (P, 2) of x, y in pixels
    repeated: int  # objects that were listed again word for word and left out


def list_images(folder: str | Path) -> list[str]:
    """Paths of the images below a folder, in order, with forward slashes.

    Raises:
        UserError: the folder is missing or has no images.
    """
    folder = Path(folder)
    found = sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        what = 'no images' if folder.is_dir() else 'no such folder'
        raise UserError(
            f'{folder}: expected a folder with images ({", ".join(IMAGE_SUFFIXES)}), found '
            f'{what}. Correct --images.'
        )
    return [p.relative_to(folder).as_posix() for p in found]


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of an image once it is turned upright; reads its head alone.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f'{path}: expected an image, found what cannot be read ({error}). Copy it again, or '
            f'remove it.'
        ) from error
    return (width, height) if turned else (height, width)


def read_yolo(images: str | Path, labels: str | Path, name: str, num_classes: int) -> YoloImage:
    """Read the label of one image.

    Args:
        images, labels: the two folders.
        name: path of the image below its folder.
        num_classes: class numbers are below it.

    Raises:
        UserError: naming file and line of what is no polygon of a known class.
    """
    height, width = image_size(Path(images) / name)
    path = (Path(labels) / name).with_suffix('.txt')
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    rows = {}
    count = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            count += 1
            rows.setdefault(' '.join(line.split()), number)
    parsed = [_parse(row.split(), f'{path}:{n}', num_classes) for row, n in rows.items()]
    scale = np.array([width, height], float)
    return YoloImage(
        name,
        (height, width),
        np.array([label for label, _ in parsed], np.int64),
        [points * scale for _, points in parsed],
        count - len(rows),
    )


def _parse(words: Sequence[str], where: str, num_classes: int) -> tuple[int, np.ndarray]:
    """Class and (P, 2) points, sides as 1."""
    try:
        label, values = float(words[0]), np.array(words[1:], float)
    except ValueError as error:
        raise UserError(
            f'{where}: expected numbers, found {error}. Export the label again.'
        ) from error
    if label != int(label) or not 0 <= label < num_classes:
        raise UserError(
            f'{where}: expected a class from 0 to {num_classes - 1}, found {words[0]}. Give the '
            f'names of all classes in their order with --names.'
        )
    if len(values) == 4:
        raise UserError(
            f'{where}: expected a polygon, found the four numbers of a box. Give segment labels '
            f'(those of coco128-seg, not of coco128).'
        )
    if len(values) < 6 or len(values) % 2:
        raise UserError(
            f'{where}: expected x and y of three or more points, found {len(values)} numbers. '
            f'Correct or remove the line.'
        )
    if not ((values >= -_OVERSHOOT) & (values <= 1 + _OVERSHOOT)).all():
        worst = values[np.abs(np.nan_to_num(values, nan=9e9) - 0.5).argmax()]
        raise UserError(
            f'{where}: expected coordinates from 0 to 1, shares of the sides of the image, found '
            f'{worst:g}. Divide pixels by width and height.'
        )
    return int(label), values.clip(0, 1).reshape(-1, 2)
