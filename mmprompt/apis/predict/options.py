"""What the options of `tools/predict.py` mean."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmprompt.apis.inference.inferencer import ZERO_SHOT
from mmprompt.common.errors import UserError


def parse_texts(values: Sequence[str], default: str = ZERO_SHOT) -> dict[str, list]:
    """``road; sky; car, automobile`` -> lists of names and synonyms; ``NAME=…`` names the list.

    Args:
        values: as given.
        default: the name of a list that has none.

    Raises:
        UserError: an empty list or name, or two lists of one name.
    """
    found: dict[str, list] = {}
    for value in values:
        name, names = _named(value, default)
        classes = _classes(names)
        if classes is None or name in found:
            wrong = f'a second list named {name!r}' if name in found else f'{value!r}'
            raise UserError(
                f"--texts: expected class names such as 'road; sky; car, automobile' (; between "
                f"classes, a comma between synonyms), or 'NAME=road; sky' to name the list, found "
                f'{wrong}.'
            )
        found[name] = classes
    return found


def _classes(text: str) -> list | None:
    """``road; car, automobile`` -> names and lists of names; None where one is empty."""
    groups = [[word.strip() for word in part.split(',')] for part in text.split(';')]
    if any(not word for group in groups for word in group):
        return None
    return [group[0] if len(group) == 1 else group for group in groups]


def parse_finer(values: Sequence[str]) -> dict[str, list]:
    """``person: head; arm, forearm`` -> finer classes by the class in which they are looked for.

    Raises:
        UserError: an empty name, no colon, or two rules for one class.
    """
    found: dict[str, list] = {}
    for value in values:
        name, colon, names = value.partition(':')
        name, classes = name.strip(), _classes(names)
        if not name or not colon or classes is None or name in found:
            wrong = f'a second rule for {name!r}' if name in found else f'{value!r}'
            raise UserError(
                f"--finer: expected a class and its finer classes, such as 'person: head; arm', "
                f'found {wrong}. Correct it.'
            )
        found[name] = classes
    return found


def parse_prompts(values: Sequence[str]) -> list[str] | dict[str, str]:
    """Paths; a dict where any is named, as in ``NAME=path``."""
    if all(Path(value).is_file() or _named(value, '')[0] == '' for value in values):
        return list(values)
    pairs = [_named(v, '') if not Path(v).is_file() else ('', v) for v in values]
    named = [(name or Path(path).stem, path) for name, path in pairs]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f'--prompts: expected different names, found {twice!r} twice. Name them.')
    return dict(named)


def _named(value: str, default: str) -> tuple[str, str]:
    found = re.fullmatch(r'\s*([\w.-]+)=(.*)', value, re.DOTALL)
    # Names become folders: dots alone would lead out of that of the results.
    return (found[1], found[2]) if found and found[1].strip('.') else (default, value)


def read_thresholds(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given."""
    names = ('score_threshold', 'overlap_threshold', 'top_k')
    return {k: v for k in names if (v := getattr(args, k)) is not None}


def read_names(text: str | None) -> list[str] | None:
    """``car; person`` -> names; None without."""
    return None if text is None else [name.strip() for name in text.split(';')]
