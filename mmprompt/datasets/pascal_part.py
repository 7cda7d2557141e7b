"""Pascal-Part: parts of the objects of PASCAL VOC 2010, as its MATLAB files have them.

The 93 categories are those of the literature on open-vocabulary part segmentation, which began with
VLPart: sides and numbers are dropped, so that ``lfuleg`` of a horse is a 'leg' and ``wheel_2`` of a
car a 'wheel', and parts that few objects have, or whose names say where they are only, are left
out. Each annotated piece stays one instance: upper and lower leg are two legs.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmprompt.common.errors import UserError

_ANIMAL = 'head leg ear eye neck'
#: Parts that each kind of object has categories for; six kinds have none.
_PARTS = {
    'aeroplane': 'body wing tail wheel',
    'bicycle': 'wheel handlebar saddle',
    'bird': 'beak head eye leg foot wing neck tail torso',
    'boat': '',
    'bottle': 'body cap',
    'bus': 'license_plate headlight door mirror window wheel',
    'car': 'license_plate headlight door mirror window wheel',
    'cat': 'head leg ear eye paw neck nose tail torso',
    'chair': '',
    'cow': f'{_ANIMAL} horn muzzle tail torso',
    'table': '',
    'dog': 'head leg ear eye paw neck nose muzzle tail torso',
    'horse': f'{_ANIMAL} muzzle tail torso',
    'motorbike': 'wheel handlebar headlight saddle',
    'person': 'hair head ear eye nose neck mouth arm hand leg foot torso',
    'pottedplant': 'plant pot',
    'sheep': f'{_ANIMAL} horn muzzle tail torso',
    'sofa': '',
    'train': '',
    'tvmonitor': '',
}
#: Names of kinds of objects as words.
_WORDS = {'table': 'dining table', 'pottedplant': 'potted plant', 'tvmonitor': 'tv monitor'}
#: How files end the names of parts where this is not the word itself.
_ENDS = {'license_plate': 'liplate', 'paw': 'pa'}
PART_SEPARATOR = ':'
#: What reading a file that is none ends in.
_WRONG = (OSError, NotImplementedError, KeyError, TypeError, ValueError, IndexError, zlib.error)

#: The 20 kinds of objects in VOC's order, by their names in the files.
PASCAL_WHOLES = {kind: _WORDS.get(kind, kind) for kind in _PARTS}
#: The 93 parts, 'object:part'.
PASCAL_PARTS = tuple(
    f'{PASCAL_WHOLES[kind]}{PART_SEPARATOR}{part.replace("_", " ")}'
    for kind, parts in _PARTS.items()
    for part in parts.split()
)


@dataclass(frozen=True, eq=False)
class PascalObject:
    """One object of an image.

    Attributes:
        kind: one of the values of `PASCAL_WHOLES`.
        mask: (H, W) bool.
        parts: name in the file and mask (H, W) bool of each part.
    """

    kind: str
    mask: np.ndarray
    parts: tuple[tuple[str, np.ndarray], ...]


def part_category(kind: str, name: str) -> str | None:
    """One of `PASCAL_PARTS` for the part of a kind of object; None for parts without a category.

    Args:
        kind: as of `PascalObject`.
        name: of the part in the file, such as ``lfuleg`` or ``wheel_2``.
    """
    plain = re.sub(r'_\d+$', '', name)
    own = next((_PARTS[key].split() for key, word in PASCAL_WHOLES.items() if word == kind), [])
    found = next((part for part in own if plain.endswith(_ENDS.get(part, part))), None)
    return found and f'{kind}{PART_SEPARATOR}{found.replace("_", " ")}'


def read_pascal_part(path: str | Path) -> list[PascalObject]:
    """The objects of one file.

    Raises:
        UserError: it is missing, damaged or something else, or its masks are of several sizes.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with open(path, 'rb') as file:
            content = loadmat(file, simplify_cells=True)
        objects = [_object(each) for each in _listed(content['anno']['objects'])]
    except FileNotFoundError as error:
        raise UserError(
            f'{path}: expected the annotations of an image of Pascal-Part, found no such file. '
            f'Unpack trainval.tar.gz again.'
        ) from error
    except (MatReadError, *_WRONG) as error:
        raise UserError(
            f'{path}: expected a MATLAB file of Pascal-Part with anno.objects, found something '
            f'else ({type(error).__name__}: {error}). Unpack trainval.tar.gz again.'
        ) from error
    sizes = {mask.shape for each in objects for mask in (each.mask, *(m for _, m in each.parts))}
    if len(sizes) > 1:
        raise UserError(
            f'{path}: expected masks of one size, found {sorted(sizes)}. Unpack trainval.tar.gz '
            f'again.'
        )
    return objects


def _object(entry: Mapping) -> PascalObject:
    parts = tuple((str(p['part_name']), _mask(p['mask'])) for p in _listed(entry['parts']))
    return PascalObject(PASCAL_WHOLES[str(entry['class'])], _mask(entry['mask']), parts)


def _listed(value: object) -> list[Mapping]:
    """What MATLAB has as an array of structures, which is one structure if there is one alone."""
    return [value] if isinstance(value, Mapping) else list(value)


def _mask(value: object) -> np.ndarray:
    mask = np.asarray(value)
    if mask.ndim != 2:
        raise ValueError(f'a mask of the shape {mask.shape}')
    return mask > 0
