"""Masks as people have them: PNGs of numbers, of palettes and of colours -> class numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.folder import shown

IGNORED = 255
NUMBERS = ('1', 'L', 'I', 'I;16', 'I;16B', 'I;16L')
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class RawMask:
    """A mask as it is stored.

    Attributes:
        values: (H, W) int64 numbers, None for colours.
        colours: (H, W) int64 as 0xRRGGBB, None for numbers; a palette PNG has both, and so has a
            picture of three channels that is grey everywhere.
        palette: whether it is a palette PNG.
    """

    values: np.ndarray | None
    colours: np.ndarray | None
    palette: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.colours if self.values is None else self.values).shape


def read_mask(path: str | Path) -> RawMask:
    """Read a mask; of colours that are grey everywhere the values are kept too.

    Raises:
        UserError: no such file, no image or a damaged one, a lossy format, or half transparent.
    """
    try:
        with Image.open(path) as file:
            kind, mode = file.format, file.mode
            if kind in ('JPEG', 'MPO', 'WEBP'):
                raise UserError(
                    f'{path}: expected a mask in a format that keeps every value, found {kind}, '
                    f'which blurs values at edges (also after converting it). Export the masks as '
                    f'PNG.'
                )
            file.load()
            if mode in NUMBERS:
                return RawMask(np.asarray(file).astype(np.int64), None)
            alpha = np.asarray(file.convert('RGBA'))[..., 3]
            colours = np.asarray(file.convert('RGB')).astype(np.int64)
            values = np.asarray(file).astype(np.int64) if mode == 'P' else None
    except FileNotFoundError as error:
        raise UserError(f'{path}: expected a mask, found no such file. Add it.') from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f'{path}: expected a mask that can be read, found a damaged file ({error}). Export it '
            f'again.'
        ) from error
    if mode not in ('P', 'RGB', 'RGBA', 'LA'):
        raise UserError(
            f'{path}: expected a mask of numbers (8 or 16 bits), of a palette or of RGB colours, '
            f'found the mode {mode!r}. Export it as PNG.'
        )
    if mode != 'P' and (alpha < 255).any():
        raise UserError(
            f'{path}: expected an opaque mask, found {int((alpha < 255).sum())} transparent '
            f'pixels, whose class is open. Export it without transparency.'
        )
    if mode != 'P' and (colours == colours[..., :1]).all():
        values = colours[..., 0]
    return RawMask(values, colours @ np.array([65536, 256, 1]), palette=mode == 'P')


@dataclass
class Strange:
    """What masks hold that is no class: pixels and first file by value."""

    pixels: dict = field(default_factory=dict)
    first: dict = field(default_factory=dict)

    def add(self, value: object, pixels: int, path: object) -> None:
        """Count one value of one mask."""
        self.pixels[value] = self.pixels.get(value, 0) + pixels
        self.first.setdefault(value, path)

    def __str__(self) -> str:
        order = sorted(self.pixels, key=lambda value: -self.pixels[value])
        return shown(
            f'{value} ({self.pixels[value]} pixels, first in {self.first[value]})'
            for value in order
        )


class MaskReader:
    """Turns masks into class numbers.

    Args:
        values: number in a mask -> class.
        colours: 0xRRGGBB -> class; empty if classes have no colours.
        ignored: numbers that count for nothing.
        ignored_colours: 0xRRGGBB that count for nothing.
        rest: what everything else is: a class or `IGNORED`; None collects it in `strange`.
        palette: what decides in a palette PNG, 'values' or 'colours'; None takes the reading that
            fits, and refuses a mask that fits both in different ways.
    """

    def __init__(
        self,
        values: Mapping[int, int],
        colours: Mapping[int, int],
        ignored: Collection[int] = (IGNORED,),
        ignored_colours: Collection[int] = (),
        rest: int | None = None,
        palette: str | None = None,
    ) -> None:
        self.values = {**values, **dict.fromkeys(ignored, IGNORED)}
        self.colours = {**colours, **dict.fromkeys(ignored_colours, IGNORED)} if colours else {}
        self.rest, self.palette = rest, palette
        self.strange, self.seen = Strange(), set()
        self._decided: dict[str, Path] = {}

    def label(self, path: str | Path) -> np.ndarray:
        """(H, W) uint8 class numbers of a mask, 255 where nothing counts.

        What is no class becomes 255 too and is counted in `strange`; numbers are noted in `seen`.

        Raises:
            UserError: the file cannot be used, or it is open how to read it.
        """
        raw = read_mask(path)
        if raw.values is None and not self.colours:
            found = ', '.join(f'#{c:06x}' for c in np.unique(raw.colours)[:5])
            raise UserError(
                f'{path}: expected a mask of numbers, as the classes have no colours, found the '
                f'colours {found}. Write the colour of each class behind its name, as in '
                f'"road #804080", or export masks of numbers.'
            )
        by_value = by_colour = None
        if self.colours and raw.colours is not None:
            by_colour = self._table(raw.colours, self.colours)
        if by_colour is None or raw.palette:
            by_value = self._table(raw.values, self.values)
        read = self._choose(Path(path), by_value, by_colour)
        label, other = by_value if read == 'values' else by_colour
        if read == 'values':
            self.seen.update(np.unique(raw.values).tolist())
        for value, pixels in other:
            self.strange.add(value if read == 'values' else f'#{value:06x}', pixels, path)
        return label

    def _table(self, raw: np.ndarray, table: Mapping[int, int]) -> tuple[np.ndarray, list]:
        """Label map, and (value, pixels) of what is not in the table and has no `rest`."""
        found, place, counts = np.unique(raw, return_inverse=True, return_counts=True)
        rest = IGNORED if self.rest is None else self.rest
        labels = np.array([table.get(int(v), rest) for v in found], np.uint8)
        other = [(int(v), int(n)) for v, n in zip(found, counts) if int(v) not in table]
        return labels[place.reshape(raw.shape)], other if self.rest is None else []

    def _choose(self, path: Path, by_value: Sequence | None, by_colour: Sequence | None) -> str:
        """'values' or 'colours', the same for all masks of a kind.

        Raises:
            UserError: both readings fit and differ, in this mask or from mask to mask.
        """
        if by_value is None or by_colour is None:
            return 'colours' if by_value is None else 'values'
        if self.palette is not None:
            return self.palette
        if not (by_value[1] or by_colour[1]):
            if (by_value[0] == by_colour[0]).all():
                return 'values'
            raise UserError(
                f'{path}: expected numbers or colours that say which class is meant, found both '
                f'in disagreement: its numbers are classes, its palette has the colours of '
                f'others. Say which are right: --palette values or --palette colours.'
            )
        read = 'values' if len(by_value[1]) <= len(by_colour[1]) else 'colours'
        self._decided.setdefault(read, path)
        if len(self._decided) == 2:
            raise UserError(
                f'{self._decided["values"]} and {self._decided["colours"]}: expected masks that '
                f'are read alike, found the numbers to be classes in the first and the colours in '
                f'the second. Say which are right: --palette values or --palette colours.'
            )
        return read
