"""How often each class occurs in the training labels: one JSON file, written and read here."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.common.files import write_json

FORMAT = 1
COMMAND = 'python tools/class_prior.py CONFIG'


def save_class_prior(
    path: str | os.PathLike,
    classes: Sequence[str],
    pixels: Sequence[int],
    images: int,
    ignored: int = 0,
) -> list[float]:
    """Write counted pixels and their shares as JSON, atomically.

    Args:
        path: where to.
        classes: C names.
        pixels: C numbers of pixels.
        images: number of images that were counted.
        ignored: pixels that belong to no class; not part of the shares.

    Returns:
        C frequencies, which sum to 1.

    Raises:
        UserError: if no pixel has a class.
    """
    total = sum(pixels)
    if total == 0:
        raise UserError(
            f'{path}: expected labelled pixels in the {images} training images, found none (all '
            f'{ignored} are ignored). Correct ignore_index, reduce_zero_label or the labels.'
        )
    frequencies = [n / total for n in pixels]
    write_json(
        path,
        dict(
            format=FORMAT,
            kind='class-prior',
            images=images,
            classes=list(classes),
            pixels=list(pixels),
            ignored_pixels=ignored,
            frequencies=frequencies,
        ),
    )
    return frequencies


def read_class_prior(
    path: str | os.PathLike, num_classes: int, classes: Sequence[str] | None = None
) -> list[float]:
    """Read the frequencies that `save_class_prior` wrote.

    Args:
        path: the JSON file.
        num_classes: how many classes the caller has.
        classes: their names, if they are to be compared with those in the file.

    Returns:
        `num_classes` frequencies, which sum to 1.

    Raises:
        UserError: the file is missing, is none of this kind or of a newer format, or belongs to
            other classes.
    """
    names, shares = read_named_prior(path)
    check_prior_classes(path, names, num_classes, classes)
    return shares


def read_named_prior(path: str | os.PathLike) -> tuple[list[str], list[float]]:
    """Read the names and frequencies that `save_class_prior` wrote, whatever the classes.

    Raises:
        UserError: the file is missing, is none of this kind or of a newer format.
    """
    path = Path(path)
    make = f'Make it: {COMMAND} --out {path}'
    if not path.is_file():
        raise UserError(f'{path}: expected a class prior, found no such file. {make}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        kind, number = content['kind'], content['format']
        names, shares = content['classes'], content['frequencies']
        if kind != 'class-prior':
            raise ValueError(f'kind {kind!r}')
        if not isinstance(number, int) or number < 1:
            raise ValueError(f'format {number!r}')
        if number > FORMAT:
            raise UserError(
                f'{path}: expected a class prior of format {FORMAT}, found format {number}. Update '
                f'mmprompt, or make it again. {make}'
            )
        if len(names) != len(shares):
            raise ValueError(f'{len(names)} classes and {len(shares)} frequencies')
        wrong = [x for x in shares if isinstance(x, (bool, str)) or not 0 <= x <= 1]
        if wrong:
            raise ValueError(f'the frequency {wrong[0]!r}')
        if not math.isclose(sum(shares), 1, abs_tol=1e-4):
            raise ValueError(f'frequencies that sum to {sum(shares):g}')
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'{path}: expected a class prior, found something else ({error}). {make}'
        ) from error
    return list(names), [float(share) for share in shares]


def check_prior_classes(
    path: str | os.PathLike, found: Sequence[str], num_classes: int, wanted: Sequence[str] | None
) -> None:
    """Compare the classes of a prior with those of whoever uses it.

    Args:
        path: where it was read.
        found: the names in it.
        num_classes: how many there should be.
        wanted: the names there should be, in order; None compares none.

    Raises:
        UserError: they differ.
    """
    mend = 'Name the file of this data set, or make one'
    if len(found) != num_classes:
        raise UserError(
            f'{path}: expected the frequencies of {num_classes} classes, found {len(found)} '
            f'({", ".join(found[:5])}{", ..." if len(found) > 5 else ""}). {mend}: {COMMAND} '
            f'--out {path}'
        )
    other = [(a, b) for a, b in zip(wanted or (), found) if a != b]
    if other:
        raise UserError(
            f'{path}: expected the frequencies of the same classes in the same order, found '
            f'{other[0][1]!r} where {other[0][0]!r} is expected ({len(other)} differ). {mend}: '
            f'{COMMAND} --out {path}'
        )
