"""Weights in files: finding, reading, writing and naming them."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.common.shipped import SCHEME, resolve_weights
from mmprompt.common.strict_loader import install_strict_loader, load_strict

__all__ = [
    'SCHEME',
    'fingerprint',
    'install_strict_loader',
    'load_strict',
    'load_tensors',
    'map_tensors',
    'read_metadata',
    'resolve_weights',
    'save_tensors',
]

# The names of the safetensors format; the order is the order in the file: widest first, so that
# every tensor starts at a multiple of its own element size.
_DTYPES = {
    torch.float64: 'F64',
    torch.int64: 'I64',
    torch.float32: 'F32',
    torch.int32: 'I32',
    torch.float16: 'F16',
    torch.bfloat16: 'BF16',
    torch.int16: 'I16',
    torch.int8: 'I8',
    torch.uint8: 'U8',
    torch.bool: 'BOOL',
}


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of weights without executing anything in it.

    Args:
        path: a safetensors file, or a torch checkpoint, whose ``state_dict`` is taken if it has
            one.

    Returns:
        The tensors by name, on the CPU, and the file's metadata (empty for a torch checkpoint).

    Raises:
        UserError: if the file is missing, cut, or holds something else.
    """
    path = resolve_weights(path)
    if path.suffix == '.safetensors':
        metadata = read_metadata(path)
        try:
            return load_file(str(path)), metadata
        except SafetensorError as error:
            raise UserError(
                f'{path}: expected a safetensors file, found a damaged one: {error}. Copy or write '
                f'it again.'
            ) from error
    checkpoint = load_strict(path)
    state = checkpoint.get('state_dict', checkpoint)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UserError(
            f'{path}: expected named tensors, found keys {list(checkpoint)[:5]}. Give a '
            f'safetensors file, a state dict or a training checkpoint.'
        )
    return tensors, {}


def map_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map the tensors of a safetensors file into memory: nothing is read before it is used.

    Writing into them changes neither the file nor what others have mapped.

    Returns:
        The tensors by name, on the CPU, and the file's metadata.

    Raises:
        UserError: if the file is missing, is no safetensors file, or is shorter than it says.
    """
    metadata = read_metadata(path)
    content = np.memmap(path, np.uint8, 'c')
    start = 8 + int.from_bytes(content[:8].tobytes(), 'little')
    entries = json.loads(content[8:start].tobytes())
    dtypes = {name: dtype for dtype, name in _DTYPES.items()}
    tensors = {}
    for name in entries.keys() - {'__metadata__'}:
        first, last = entries[name]['data_offsets']
        flat = torch.from_numpy(content[start + first : start + last])
        tensors[name] = flat.view(dtypes[entries[name]['dtype']]).reshape(entries[name]['shape'])
    return tensors, metadata


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Read the metadata of a safetensors file and check that the file is whole.

    Raises:
        UserError: if the file is missing, is no safetensors file, or is shorter than it says.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path}: expected a safetensors file, found nothing. Correct the path.')
    size = path.stat().st_size
    with open(path, 'rb') as stream:
        start = stream.read(9)
        length = struct.unpack('<Q', start[:8])[0] if len(start) == 9 else 0
        if not start.endswith(b'{') or not 2 <= length <= 100_000_000:
            raise UserError(
                f'{path}: expected a safetensors file, found {size} bytes of something else. Give '
                f'the file that mmprompt wrote.'
            )
        header = b'{' + stream.read(length - 1)
    try:
        entries = json.loads(header)
        metadata = entries.pop('__metadata__', {})
        expected = 8 + length + max((e['data_offsets'][1] for e in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        expected = 8 + length if size < 8 + length else -1
    if size < expected:
        raise UserError(
            f'{path}: the file is cut: expected {expected} bytes or more, found {size}. Copy or '
            f'write it again.'
        )
    if size != expected:
        raise UserError(
            f'{path}: expected a safetensors file, found a damaged header or {size} bytes where '
            f'{expected} were announced. Copy or write it again.'
        )
    return metadata


def save_tensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors as safetensors: to a temporary name, then renamed.

    The library's own writer puts metadata in random order; here equal content gives equal bytes.

    Args:
        path: the file to make or replace.
        tensors: what to write, any device; order does not matter.
        metadata: strings to put beside them.
    """
    order = list(_DTYPES)
    unknown = {k: v.dtype for k, v in tensors.items() if v.dtype not in _DTYPES}
    if unknown:
        raise TypeError(f'safetensors cannot hold {unknown}')
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict = {'__metadata__': dict(sorted((metadata or {}).items()))}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            'dtype': _DTYPES[tensor.dtype],
            'shape': list(tensor.shape),
            'data_offsets': [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)
    with atomic_file(path) as stream:
        stream.write(struct.pack('<Q', len(text)) + text)
        for name in names:
            stream.write(tensor_bytes(tensors[name]))
    return Path(path)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the elements of ``tensor`` in row-major order as raw little-endian bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over sorted names, shapes and float32 bytes of ``state_dict``."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name]
        digest.update(f'{name}\0{tuple(tensor.shape)}\0'.encode())
        digest.update(tensor_bytes(tensor.detach().to(torch.float32)))
    return digest.hexdigest()
