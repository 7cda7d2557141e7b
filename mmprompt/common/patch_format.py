"""A `PatchSet` as bytes: what a store holds for one image."""

import struct
import zlib

import numpy as np

from mmprompt.common.patches import CELLS, PatchSet

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
    """Read what `pack` wrote.

    Raises:
        DamagedError: a byte is wrong, missing or too many.
    """
    if len(data) < _HEAD.size or zlib.crc32(memoryview(data)[4:]) != _HEAD.unpack_from(data)[0]:
        raise DamagedError('the check sum is wrong')
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
