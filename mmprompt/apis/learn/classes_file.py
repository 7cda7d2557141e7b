"""``classes.txt``: names, and what stands for them in masks.

    road | street            # synonyms, averaged; the first is the name of the class
    7: sidewalk              # masks hold 7 for it, or it is the COCO category 7
    building  #804000        # masks have this colour for it; `128 64 0` says the same

Every file of names of `tools/encode_class_names.py` is one. Without numbers and colours, masks hold
0 for the first line, 1 for the second, and so on.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.datasets.masks import IGNORED
from mmprompt.foundation.seem.name_files import parse_names, read_lines

_NUMBER = re.compile(r'(\d+)\s*:\s*(.+)')
_BARE_NUMBER = re.compile(r'\d+[\s,;]+\D')
_HEX = re.compile(r'(.*\S)\s+#([0-9a-fA-F]{6})')
_TRIPLE = re.compile(r'(.*\S)\s+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})')


@dataclass(frozen=True)
class Classes:
    """The content of a ``classes.txt``.

    Attributes:
        words: C lists: a name and its synonyms.
        ids: C numbers in masks, or None.
        colours: C RGB triples in masks, or None.
    """

    words: tuple[tuple[str, ...], ...]
    ids: tuple[int, ...] | None = None
    colours: tuple[tuple[int, int, int], ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(words[0] for words in self.words)

    @property
    def texts(self) -> tuple:
        """What the text encoder reads: a name, or a list of synonyms."""
        return tuple(words[0] if len(words) == 1 else list(words) for words in self.words)

    @property
    def values(self) -> dict[int, int]:
        """Number in a mask -> class."""
        ids = range(len(self.words)) if self.ids is None else self.ids
        return {value: number for number, value in enumerate(ids)}


def read_classes(path: str | Path) -> Classes:
    """Read a ``classes.txt``.

    Raises:
        UserError: the file cannot be read, a line cannot be understood or comes twice, only some
            lines have a number or a colour, or there are fewer than 2 or more than 255 classes.
    """
    places, numbers, colours = [], [], []
    for place, line in read_lines(path, colours=True):
        number, line = _number(line, f'{path}, {place}')
        colour, line = _colour(line, f'{path}, {place}')
        places.append((place, line))
        numbers.append(number)
        colours.append(colour)
    words = tuple(tuple(group) for group in parse_names(places, str(path)))
    if not 2 <= len(words) <= IGNORED:
        raise UserError(
            f'{path}: expected 2 to {IGNORED} classes, found {len(words)}. '
            + ('Shorten the list.' if len(words) > 2 else 'List what is not the class as well.')
        )
    for given, what in ((numbers, 'number'), (colours, 'colour')):
        _all_or_none(given, what, [place for place, _ in places], path)
    return Classes(
        words,
        None if numbers[0] is None else tuple(numbers),
        None if colours[0] is None else tuple(colours),
    )


def parse_colour(text: str) -> int | None:
    """0xRRGGBB of ``#rrggbb``; None for anything else."""
    match = re.fullmatch(r'#([0-9a-fA-F]{6})', text.strip())
    return int(match[1], 16) if match else None


def packed(colour: tuple[int, int, int]) -> int:
    """An RGB triple as 0xRRGGBB."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _number(line: str, where: str) -> tuple[int | None, str]:
    match = _NUMBER.fullmatch(line)
    if match:
        return int(match[1]), match[2].strip()
    if _BARE_NUMBER.match(line):
        raise UserError(
            f'{where}: expected a class name, found a number before it, {line!r}. Write a colon if '
            f'masks hold this number for the class, as in "7: road", or remove it.'
        )
    return None, line


def _colour(line: str, where: str) -> tuple[tuple[int, int, int] | None, str]:
    if match := _HEX.fullmatch(line):
        value = int(match[2], 16)
        return (value >> 16, value >> 8 & 255, value & 255), match[1]
    if match := _TRIPLE.fullmatch(line):
        colour = tuple(int(match[i]) for i in (2, 3, 4))
        if max(colour) > 255:
            raise UserError(f'{where}: expected a colour of 0 to 255, found {colour}. Correct it.')
        return colour, match[1].rstrip(', ')
    return None, line


def _all_or_none(given: list, what: str, places: list[str], path: str | Path) -> None:
    bare = [place for place, value in zip(places, given) if value is None]
    if 0 < len(bare) < len(given):
        raise UserError(
            f'{path}: expected a {what} in every line or in none, found none in {bare[0]} and '
            f'{len(given) - len(bare)} lines with one. Complete them.'
        )
    if not bare and len(set(given)) < len(given):
        twice = next(value for value in given if given.count(value) > 1)
        first, second = [place for place, v in zip(places, given) if v == twice][:2]
        raise UserError(
            f'{path}: expected another {what} for every class, found {twice} in {first} and '
            f'{second}. Correct one of them.'
        )
