"""The file of a patch store: its header and tables, and a `PatchSet` as the bytes of one image."""

import json
import os
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.common.patches import CELLS, PatchSet

FORMAT = 2
APPLICATION = 0x6D6D5053  # 'mmPS', in the file's header
MAKE = 'tools/generate_patches.py'
SCHEMA = (
    'CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)',
    'CREATE TABLE patches (key TEXT PRIMARY KEY, height INTEGER NOT NULL, width INTEGER NOT NULL, '
    'count INTEGER NOT NULL, data BLOB NOT NULL, image INTEGER)',
    f'PRAGMA application_id = {APPLICATION}',
    f'PRAGMA user_version = {FORMAT}',
)
# Stores of format 1 know no digests of images. An unfinished one is brought to format 2.
DIGESTS_SINCE = 2
UPGRADE = ('ALTER TABLE patches ADD COLUMN image INTEGER', f'PRAGMA user_version = {FORMAT}')
_MAGIC = b'SQLite format 3\0'
_HEADER = 100

# Check sum of all that follows; H, W, N; then little-endian arrays of N entries, N bit fields of
# 7 x 7 cells, and the run lengths one after the other.
_HEAD = struct.Struct('<IIII')
_FIELDS = (('boxes', '<f4', 4), ('scores', '<f4', 1), ('areas', '<i8', 1))
_REGION = (CELLS * CELLS + 7) // 8  # bytes of a bit field


class DamagedError(ValueError):
    """These are not the bytes that were written."""


def pack(patches: PatchSet) -> bytes:
    """Write patches as bytes."""
    lengths = np.array([len(each) for each in patches.rles], dtype='<u4')
    regions = np.packbits(patches.regions.reshape(len(patches), CELLS * CELLS), axis=1)
    parts = [np.asarray(getattr(patches, name)).astype(kind) for name, kind, _ in _FIELDS]
    body = b''.join([*(p.tobytes() for p in (*parts, regions, lengths)), *patches.rles])
    head = struct.pack('<III', *patches.size, len(patches))
    return struct.pack('<I', zlib.crc32(head + body)) + head + body


def unpack(data: bytes) -> PatchSet:
    """Read what `pack` wrote. `shape` has checked the bytes."""
    _, height, width, count = _HEAD.unpack_from(data)
    at, arrays = _HEAD.size, {}
    for name, kind, columns in _FIELDS:
        values = np.frombuffer(data, kind, count * columns, at)
        at += values.nbytes
        # A copy: an array of our own can be written to, and lets go of the rest of the bytes.
        values = values.astype(values.dtype.newbyteorder('='))
        arrays[name] = values.reshape(count, columns) if columns > 1 else values
    packed = np.frombuffer(data, np.uint8, count * _REGION, at).reshape(count, _REGION)
    at += packed.nbytes
    regions = np.unpackbits(packed, axis=1, count=CELLS * CELLS).astype(bool)
    lengths = np.frombuffer(data, '<u4', count, at)
    at += lengths.nbytes
    ends = (at + np.cumsum(lengths, dtype=np.int64)).tolist()
    rles = tuple(data[a:b] for a, b in zip([at, *ends], ends))
    return PatchSet((height, width), rles, regions=regions.reshape(count, CELLS, CELLS), **arrays)


def shape(data: bytes) -> tuple[int, int, int]:
    """Height, width and number of patches of what `pack` wrote.

    Raises:
        DamagedError: a byte is wrong, missing or too many.
    """
    if len(data) < _HEAD.size or zlib.crc32(memoryview(data)[4:]) != _HEAD.unpack_from(data)[0]:
        raise DamagedError('the check sum is wrong')
    return _HEAD.unpack_from(data)[1:]


def image_digest(path: str | os.PathLike) -> int:
    """CRC-32 of the bytes of an image file, by which a store knows whose patches it has.

    Raises:
        OSError: the file cannot be read.
    """
    return zlib.crc32(Path(path).read_bytes())


def check_header(path: Path) -> None:
    """Refuse what is no store, is cut, or is newer than this program."""
    with path.open('rb') as stream:
        head = stream.read(_HEADER)
        size = stream.seek(0, os.SEEK_END)
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        refuse_file(path, f'is no patch store: it begins with {head[:16]!r}')
    page, pages, version, application = (
        struct.unpack_from(kind, head, at)[0]
        for kind, at in (('>H', 16), ('>I', 28), ('>I', 60), ('>I', 68))
    )
    if application != APPLICATION:
        refuse_file(path, 'is an SQLite file of another program')
    if version > FORMAT:
        raise UserError(
            f'{path} is a patch store of format {version}; this program reads up to {FORMAT}. '
            'Install a newer mmprompt.'
        )
    expected = pages * (65536 if page == 1 else page)  # the header's way to say 65536
    if size != expected:
        refuse_file(path, f'is cut: it has {size} bytes and says that it has {expected}')


def read_meta(path: Path) -> dict[str, Any]:
    """Check a finished store and read what it says of itself."""
    if path.name.endswith('.part'):
        refuse_unfinished(path)
    if not path.is_file():
        part = path.with_name(path.name + '.part')
        if part.exists():
            refuse_unfinished(part)
        what = 'is a folder' if path.is_dir() else 'does not exist'
        raise UserError(f'{path} {what}; expected a patch store. Make one with {MAKE}.')
    check_header(path)
    connection = read_only(path)
    try:
        meta = meta_rows(connection)
        connection.execute('SELECT key, height, width, count, data FROM patches LIMIT 0')
    except (sqlite3.DatabaseError, ValueError) as reason:
        refuse_file(path, f'cannot be read ({reason})')
    finally:
        connection.close()
    if 'images' not in meta:
        refuse_unfinished(path)
    return meta


def meta_rows(connection: sqlite3.Connection) -> dict[str, Any]:
    """What an open store says of itself."""
    rows = connection.execute('SELECT name, value FROM meta').fetchall()
    return {name: json.loads(value) for name, value in rows}


def read_only(path: Path) -> sqlite3.Connection:
    """Open a finished store."""
    # "immutable" takes no lock and writes no file beside it, so that a store on a read-only disk
    # or a network disk can be read by any number of processes.
    uri = f'{path.absolute().as_uri()}?mode=ro&immutable=1'
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def refuse_unfinished(path: Path) -> NoReturn:
    """Say that a store is not finished."""
    raise UserError(
        f'{path} is a patch store that is not finished. Run the command that makes it again: it '
        'goes on where it was.'
    )


def refuse_file(path: Path, reason: str) -> NoReturn:
    """Say that a file is no store that can be read, and why."""
    raise UserError(f'{path} {reason}; expected a patch store. Make it again with {MAKE}.')
