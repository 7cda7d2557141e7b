"""The files of a patch store: what they say of themselves, and how shards go together."""

import glob
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import (
    FORMAT,
    MAKE,
    read_only,
    refuse_file,
    refuse_unfinished,
)

StorePath = str | os.PathLike
OWN = ('format', 'settings_hash', 'images')  # what a writer adds to the meta data


def complete_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a store says of itself but for `images`: what its maker gave, a hash, the format."""
    if missing := [name for name in ('generator', 'settings') if name not in meta]:
        raise ValueError(f'the meta data of a store lack {missing}')
    if own := [name for name in OWN if name in meta]:
        raise ValueError(f'{own} of the meta data of a store are written by the store itself')
    meta = json.loads(json.dumps(dict(meta)))  # as it will be read again: lists, not tuples
    return {**meta, 'settings_hash': settings_hash(meta), 'format': FORMAT}


def settings_hash(meta: Mapping[str, Any]) -> str:
    """A hash of `generator` and `settings`: the same for patches made the same way."""
    made = json.dumps([meta['generator'], meta['settings']], sort_keys=True)
    return hashlib.sha256(made.encode()).hexdigest()[:16]


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = '') -> list[str]:
    """What two meta data say differently, in words."""
    found = []
    for name in sorted({*there, *here} - {'settings_hash'}):
        a, b = (each.get(name, 'nothing') for each in (there, here))
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f'{prefix}{name}.')
        elif a != b:
            found.append(f'{prefix}{name} is {a!r} there and {b!r} here')
    return found


def resolve(
    path: StorePath | Sequence[StorePath], besides: StorePath | None = None
) -> tuple[Path, ...]:
    """The files of a store, which may be given as patterns; `besides` is a file that is left out.

    Raises:
        UserError: a pattern matches no file, or one that is not finished.
    """
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    left_out = [] if besides is None else [Path(besides), Path(f'{besides}.part')]
    found: dict[Path, None] = {}
    for text in map(os.fspath, given):
        names = [Path(text)]
        if glob.has_magic(text) and not names[0].exists():
            matches = {Path(name) for end in ('', '.part') for name in glob.glob(text + end)}
            names = [
                n for n in sorted(matches) if n not in left_out and n.suffix != '.part-journal'
            ]
            if not names:
                raise UserError(f'no patch store is called {text}; make one with {MAKE}.')
        for name in names:
            if name.suffix == '.part':
                refuse_unfinished(name)
            found[name] = None
    if not found:
        raise UserError(f'a patch store of no files was asked for; make one with {MAKE}.')
    return tuple(found)


def index(paths: Sequence[Path]) -> dict[str, int]:
    """Which shard has an image."""
    shard_of: dict[str, int] = {}
    for shard, path in enumerate(paths):
        connection = read_only(path)
        try:
            keys = connection.execute('SELECT key FROM patches').fetchall()
        except sqlite3.DatabaseError as reason:
            refuse_file(path, f'cannot be read ({reason})')
        finally:
            connection.close()
        for (key,) in keys:
            if shard_of.setdefault(key, shard) != shard:
                raise UserError(
                    f'{paths[shard_of[key]]} and {path} both have patches of {key!r}; expected '
                    'every image in one file. Leave one of them out, or merge the two.'
                )
    return shard_of


def common_meta(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all shards say alike, and how many images they have."""
    for path, meta in zip(paths, metas):
        if meta['settings_hash'] != metas[0]['settings_hash']:
            named = [{k: m[k] for k in ('generator', 'settings')} for m in (metas[0], meta)]
            raise UserError(
                f'{paths[0]} and {path} were made with other settings: '
                f'{"; ".join(differences(*named))} (there: the first). Give the shards of one '
                'run, or merge the two.'
            )
    common = {k: v for k, v in metas[0].items() if all(m.get(k) == v for m in metas)}
    return {**common, 'images': sum(meta['images'] for meta in metas)}
