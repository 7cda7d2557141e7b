"""Iterative use of SAM-CP: what was found is cut out, enlarged and asked for finer classes.

Patches of an enlarged object are finer than those of the whole picture, and Prompts I and II merge
them by names of parts (Figs. 6 and 7 of the paper). Levels go on: parts of parts.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch

from mmprompt.apis.inference.class_lists import ClassList
from mmprompt.apis.inference.predictions import Prediction, Segment
from mmprompt.apis.patches.source import PatchSource
from mmprompt.common.errors import UserError
from mmprompt.common.mask_merge import PanopticResult
from mmprompt.common.text_bank import Names

#: What is seen around the box of an object, on each side, as a share of its longer side.
MARGIN = 0.1
#: Objects whose box is smaller, in pixels, are left as they are.
LEAST_SIDE = 8
FINER = 'finer'


class Crop(NamedTuple):
    """A part of a picture, enlarged.

    Attributes:
        box: x1 y1 x2 y2 in the picture, x2 and y2 behind the last pixel.
        pixels: RGB (h, w, 3) uint8.
    """

    box: tuple[int, int, int, int]
    pixels: np.ndarray

    def back(self, values: np.ndarray) -> np.ndarray:
        """A map (h, w) of the enlarged pixels -> that of the box, (y2 - y1, x2 - x1)."""
        x1, y1, x2, y2 = self.box
        rows, columns = (
            ((2 * np.arange(there) + 1) * seen) // (2 * there)  # where the centres lie
            for there, seen in zip((y2 - y1, x2 - x1), values.shape)
        )
        return values[rows[:, None], columns]


def cut_out(picture: np.ndarray, mask: np.ndarray, margin: float = MARGIN) -> Crop | None:
    """The box of a mask with a margin, enlarged until it is as large as the picture.

    Its shorter side becomes that of the picture, unless its longer side would become longer than
    the picture's. Nothing is made smaller.

    Args:
        picture: RGB (H, W, 3) uint8.
        mask: (H, W) bool.
        margin: see `MARGIN`.

    Returns:
        None for an object that is too small, see `LEAST_SIDE`.
    """
    used = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(used[0]):
        return None
    first, last = (np.array([line[end] for line in used]) for end in (0, -1))
    sides = last + 1 - first
    if sides.min() < LEAST_SIDE:
        return None
    more = round(margin * int(sides.max()))
    y1, x1 = np.maximum(first - more, 0).tolist()
    y2, x2 = np.minimum(last + 1 + more, mask.shape).tolist()
    pixels = np.ascontiguousarray(picture[y1:y2, x1:x2])
    sides, whole = pixels.shape[:2], picture.shape[:2]
    larger = max(1.0, min(min(whole) / min(sides), max(whole) / max(sides)))
    size = [round(larger * side) for side in sides]
    pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_CUBIC)
    return Crop((x1, y1, x2, y2), pixels)


def levels_of(
    rules: Mapping[str, Names], classes: Sequence[str]
) -> list[dict[str, tuple[str | tuple[str, ...], ...]]]:
    """Rules by level: those of the classes themselves, those of their parts, and so on.

    Args:
        rules: finer classes by the name of the class that they are looked for in.
        classes: of the whole picture.

    Raises:
        UserError: a rule is for a class that nothing makes.
    """
    levels, left, known = _levels(rules, classes)
    if left:
        raise UserError(
            f'finer: expected the name of a class whose objects are looked at again, found '
            f'{next(iter(left))!r}. The classes are {", ".join(sorted(known))}.'
        )
    return levels


def reachable(rules: Mapping[str, Names], classes: Sequence[str]) -> dict[str, Names]:
    """The rules for these classes, for their parts, and so on, without those for others."""
    left = _levels(rules, classes)[1]
    return {name: texts for name, texts in rules.items() if name not in left}


def _levels(
    rules: Mapping[str, Names], classes: Sequence[str]
) -> tuple[list[dict], dict[str, tuple], set[str]]:
    """Levels, the rules that belong to none of them, and all names of classes on the way."""
    left = {
        name: tuple(t if isinstance(t, str) else tuple(t) for t in texts)
        for name, texts in rules.items()
    }
    levels, last, known = [], set(classes), set(classes)
    while level := {name: left.pop(name) for name in tuple(left) if name in last}:
        levels.append(level)
        last = set(classes_of(level))
        known |= last
    return levels, left, known


def classes_of(level: Mapping[str, Sequence]) -> tuple[str, ...]:
    """The classes of all rules of a level, each once."""
    names = [each if isinstance(each, str) else each[0] for part in level.values() for each in part]
    return tuple(dict.fromkeys(names))


def level_names(count: int) -> list[str]:
    """What the results of the levels are called: 'finer', 'finer-2' and so on."""
    return [FINER if level == 1 else f'{FINER}-{level}' for level in range(1, count + 1)]


class Segmenter(Protocol):
    """What is asked here of a `SAMCPSegmenter`."""

    source: PatchSource

    def finer_list(self, texts: Names) -> ClassList:
        """Finer classes and their things."""

    def asking(self, asked: ClassList) -> AbstractContextManager[None]:
        """Ask for other classes inside a block."""

    def predict(self, picture: np.ndarray, **options: Any) -> dict[str, Prediction]:
        """Results of a picture by task."""


def finer(
    segmenter: Segmenter,
    picture: np.ndarray,
    found: Prediction,
    rules: Mapping[str, Names],
    margin: float = MARGIN,
    **thresholds: float,
) -> dict[str, Prediction]:
    """Look for finer classes inside what was found.

    Args:
        segmenter: whose patches a generator makes.
        picture: RGB (H, W, 3) uint8.
        found: its panoptic result.
        rules: finer classes by the name of the class in whose objects they are looked for.
        margin: see `MARGIN`.
        thresholds: of panoptic results.

    Returns:
        By level (`level_names`) a panoptic prediction, in which each segment lies inside the object
        in which it was found and has that one's id as `parent`.

    Raises:
        UserError: a rule is for no class, a name is not known to the encoder, or there is no
            generator.
    """
    check_source(segmenter.source)
    levels = levels_of(rules, found.classes)
    answers: dict[str, Prediction] = {}
    for name, level in zip(level_names(len(levels)), levels):
        found = _level(segmenter, picture, found, level, margin, thresholds)
        answers[name] = found
    return answers


def check_source(source: PatchSource) -> None:
    """Refuse patches that a store alone has.

    Raises:
        UserError: enlarged objects need a generator.
    """
    if source.generator is None:
        raise UserError(
            'finer: expected a generator of patches, since enlarged objects need patches of their '
            'own, found a store alone. Give --generator, too.'
        )


def things_of(segmenter: Segmenter, level: Mapping[str, Sequence]) -> tuple[int, ...]:
    """Which of the classes of a level are things."""
    classes = classes_of(level)
    asked = [segmenter.finer_list(texts) for texts in level.values()]
    return tuple(sorted({classes.index(each.classes[i]) for each in asked for i in each.things}))


def _level(
    segmenter: Segmenter,
    picture: np.ndarray,
    coarse: Prediction,
    level: Mapping[str, Sequence],
    margin: float,
    thresholds: dict,
) -> Prediction:
    classes = classes_of(level)
    seg_map = np.zeros(picture.shape[:2], np.int64)
    labels, scores, parents = [], [], []
    for whole in coarse.segments:
        if whole.category not in level:
            continue
        crop = cut_out(picture, whole.mask, margin)
        if crop is None:
            continue
        with segmenter.asking(segmenter.finer_list(level[whole.category])):
            parts = segmenter.predict(crop.pixels, task='panoptic', **thresholds)['panoptic']
        for part, mask in _pasted(parts, crop, whole):
            labels.append(classes.index(part.category))
            scores.append(part.score)
            parents.append(whole.id)
            seg_map[mask] = len(labels)
    result = PanopticResult(
        torch.from_numpy(seg_map),
        torch.arange(1, len(labels) + 1),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor(scores, dtype=torch.float32),
    )
    return Prediction(
        coarse.prompt, 'panoptic', classes, things_of(segmenter, level), seg_map.shape, seg_map,
        result.scores.numpy(), result, tuple(parents),
    )  # fmt: skip


def _pasted(parts: Prediction, crop: Crop, whole: Segment) -> list[tuple[Segment, np.ndarray]]:
    """Segments of a crop with their masks in the picture, those of which something is left."""
    x1, y1, x2, y2 = crop.box
    labels = crop.back(parts.label_map)
    found = []
    for part in parts.segments:
        mask = np.zeros_like(whole.mask)
        mask[y1:y2, x1:x2] = labels == part.id
        mask &= whole.mask
        if mask.any():
            found.append((part, mask))
    return found
