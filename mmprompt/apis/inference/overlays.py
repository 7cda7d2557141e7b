"""Predictions as pictures: colours of classes, overlays, label maps."""

import colorsys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS as SEG_DATASETS
from PIL import Image, ImageDraw, ImageFont

from mmprompt.apis.inference.predictions import Prediction

Colour = tuple[int, int, int]
STRENGTH = 0.55  # share of the colour over the picture
NAMED = 0.004  # regions of a smaller share of the picture get no name
DRAWN_SCORE = 0.3  # instances below it are in the JSON, but not drawn


class Region(NamedTuple):
    """What is painted: a mask (H, W), its colour and its caption."""

    mask: np.ndarray
    colour: Colour
    caption: str


def palette_of(classes: Sequence[str]) -> list[Colour]:
    """One RGB colour per class: the dataset's own, or Cityscapes' by name, or one that is free."""
    wanted = tuple(classes)
    for dataset in (*ROOT_DATASETS.module_dict.values(), *SEG_DATASETS.module_dict.values()):
        known = getattr(dataset, 'METAINFO', None) or {}
        if tuple(known.get('classes') or ()) == wanted and known.get('palette'):
            return [tuple(map(int, colour)) for colour in known['palette']]
    streets = CityscapesDataset.METAINFO
    named = dict(zip(streets['classes'], map(tuple, streets['palette'])))
    chosen: list[Colour] = []
    for index, name in enumerate(wanted):
        colour = named.get(name)
        chosen.append(_free(index) if colour is None or colour in chosen else colour)
    return chosen


def _free(index: int) -> Colour:
    # Steps of the golden ratio around the circle of hues: neighbours in number differ most.
    hue, light = (index * 0.61803398875) % 1.0, (0.55, 0.4, 0.7)[index % 3]
    return tuple(round(255 * v) for v in colorsys.hls_to_rgb(hue, light, 0.65))


def shade(colour: Colour, number: int) -> Colour:
    """The colour of one of several objects of a class."""
    share = (0.0, 0.35, -0.3, 0.6, -0.5, 0.2, -0.15)[number % 7]
    end = 255 if share > 0 else 0
    return tuple(round(v + abs(share) * (end - v)) for v in colour)


def regions_of(prediction: Prediction, least: float = DRAWN_SCORE) -> list[Region]:
    """What an overlay of a prediction shows, the best instance last, so on top.

    Args:
        prediction: one picture under one prompt.
        least: score below which an instance is left out.
    """
    colours = palette_of(prediction.classes)
    seen: dict[int, int] = {}
    found = []
    for segment in prediction.segments:
        if prediction.task == 'instance' and segment.score < least:
            continue
        colour, caption = colours[segment.category_id], segment.category
        if prediction.task != 'semantic':
            caption = f'{caption} {segment.score:.2f}'
        if segment.is_thing and prediction.task != 'semantic':
            number = seen[segment.category_id] = seen.get(segment.category_id, -1) + 1
            colour = shade(colour, number)
        found.append(Region(segment.mask, colour, caption))
    return found[::-1] if prediction.task == 'instance' else found


def draw_overlay(picture: np.ndarray, regions: Iterable[Region]) -> np.ndarray:
    """Regions in colour over a picture, outlined and named; (H, W, 3) uint8, of the same size.

    Args:
        picture: RGB (H, W, 3) uint8.
        regions: later ones are painted over earlier ones.
    """
    out = picture.astype(np.float32)
    height, width = picture.shape[:2]
    thin = max(1, min(height, width) // 400)
    kernel = np.ones((2 * thin + 1,) * 2, np.uint8)
    regions = list(regions)
    for mask, colour, _ in regions:
        paint = np.asarray(colour, np.float32)
        out[mask] = (1 - STRENGTH) * out[mask] + STRENGTH * paint
        edge = mask & ~cv2.erode(mask.astype(np.uint8), kernel, borderValue=1).astype(bool)
        out[edge] = 0.5 * paint + 0.5 * (255 if paint.mean() < 128 else 0)
    canvas = Image.fromarray(out.round().astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    font = _font(max(9, min(height, width) // 32))
    for mask, _, caption in regions:
        if mask.mean() >= NAMED:
            _write(draw, caption, _innermost(mask), font, (width, height))
    return np.asarray(canvas)


def _innermost(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the border of a mask."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(x), int(y)


def _write(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], font, size) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left, bottom - top
    x = min(max(0, at[0] - width // 2), max(0, size[0] - width - 1))
    y = min(max(0, at[1] - height // 2), max(0, size[1] - height - 1))
    place = (x - left, y - top)
    draw.text(place, text, 'white', font, stroke_width=max(1, height // 8), stroke_fill='black')


@lru_cache
def _font(size: int):
    # Matplotlib's own file: it has far more letters than Pillow's built-in one.
    path = Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'
    return ImageFont.truetype(str(path), size)


def label_image(prediction: Prediction) -> Image.Image:
    """The label map as an image: 8 bits with a palette, or 16 bits where a value exceeds 255.

    Values are those of `Prediction.label_map`, with 255 (in 16 bits 65535) for its -1; read it with
    ``PIL.Image.open`` and ``numpy.asarray``, which give the values and not the colours.
    """
    values = prediction.label_map
    colours = palette_of(prediction.classes)
    semantic = prediction.task == 'semantic'
    most = len(colours) - 1 if semantic else int(values.max(initial=0))
    if most > 255 or (most == 255 and (values < 0).any()):
        return Image.fromarray(values.astype(np.uint16))
    if not semantic:
        things = {s.id: shade(colours[s.category_id], s.id) for s in prediction.segments}
        colours = [things.get(i, (0, 0, 0)) for i in range(most + 1)]
    image = Image.fromarray(values.astype(np.uint8), 'P')
    image.putpalette([v for colour in colours for v in colour])
    return image
