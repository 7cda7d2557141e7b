"""Weights by path, or by the name of those that lie in the package."""

import os
from pathlib import Path

from mmprompt.common.errors import UserError

SCHEME = 'mmprompt://'
WEIGHTS = Path(__file__).resolve().parent.parent / 'weights'


def resolve_weights(spec: str | os.PathLike) -> Path:
    """Turn ``mmprompt://NAME`` or a path into the path of an existing file.

    Raises:
        UserError: if there is no such file.
    """
    text = os.fspath(spec)
    if text.startswith(SCHEME):
        name = text[len(SCHEME) :]
        path = WEIGHTS / f'{name}.safetensors'
        if not path.is_file():
            known = ', '.join(SCHEME + p.stem for p in sorted(WEIGHTS.glob('*.safetensors')))
            raise UserError(
                f'{text}: mmprompt ships no weights of that name (looked for {path}). '
                f'Shipped: {known or "none"}. Give one of these, or the path of a file.'
            )
        return path
    path = Path(text).expanduser()
    if not path.is_file():
        found = 'a folder' if path.is_dir() else 'nothing'
        raise UserError(
            f'{path}: expected a file of weights, found {found}. Correct the path, or give '
            f'the name of shipped weights as {SCHEME}NAME.'
        )
    return path
