"""Pickles of plain data, read without running anything that is in them.

A pickle is a program. This reader knows the opcodes of containers, numbers and texts, and of NumPy
arrays the few calls by which NumPy writes them; these are answered by stand-ins below and never
reach NumPy, whose own `__setstate__` trusts what it is given.
"""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmprompt.common.errors import UserError

_PLAIN = re.compile(r'[biuf]\d{1,2}|\?')
_NUMPY_CORE = ('numpy.core', 'numpy._core')  # before and since NumPy 2
_TORCH_ZIP, _TORCH_MAGIC = b'PK\x03\x04', (0x1950A86A20F9469CFC6C).to_bytes(10, 'little')


class RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that is no plain data."""


class _Dtype:
    """Stands in for `numpy.dtype` while a pickle is read: a number type without fields."""

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not _PLAIN.fullmatch(spec.lstrip('<>|=')):
            raise RefusedError(f'an array of {spec!r}, which are no numbers')
        self.spec = spec.lstrip('<>|=')
        self.order = '='

    def __setstate__(self, state: tuple) -> None:
        if len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
            raise RefusedError('an array of records')
        self.order = state[1]

    def real(self) -> np.dtype:
        return np.dtype(self.order + self.spec)


class _Array:
    """Stands in for `numpy.ndarray`; `plain` turns it into one."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _shaped(raw, dtype, shape, 'F' if fortran else 'C')


def _shaped(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)):
        raise RefusedError('an array that holds objects')
    array = np.frombuffer(bytes(raw), dtype.real()).reshape(shape, order=str(order))
    return array.astype(array.dtype.newbyteorder('='))


def _reconstruct(kind: Any, shape: Any, _: Any) -> _Array:
    if kind is not _Array or tuple(shape) != (0,):
        raise RefusedError('an array of another kind')
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _shaped(raw, dtype, shape, order)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    return _shaped(raw, dtype, (), 'C').item()


def _encode(text: Any, encoding: Any = 'latin1') -> bytes:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding != 'latin1':
        raise RefusedError('a text in another encoding')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """How protocols before 3 write bytes of length 0."""
    return b''


_KNOWN: dict[tuple[str, str], Callable] = {
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _Dtype,
    ('_codecs', 'encode'): _encode,
    ('__builtin__', 'bytes'): _no_bytes,
    ('collections', 'OrderedDict'): OrderedDict,
}
for _core in _NUMPY_CORE:
    _KNOWN[f'{_core}.multiarray', '_reconstruct'] = _reconstruct
    _KNOWN[f'{_core}.multiarray', 'scalar'] = _scalar
    _KNOWN[f'{_core}.numeric', '_frombuffer'] = _frombuffer


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise RefusedError(f'{module}.{name}') from None

    def persistent_load(self, _: Any) -> Any:
        raise RefusedError('an object outside of the file')


def plain(value: Any) -> Any:
    """Arrays in place of stand-ins, in lists, tuples and dicts."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


def read_pickle(path: str | PathLike) -> Any:
    """Read a pickle of containers, numbers, texts, bytes and NumPy arrays of numbers.

    Raises:
        UserError: there is no such file, it is cut or no pickle, was written by `torch.save`, or
            asks for anything else than plain data; nothing of it has been executed.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: expected a pickle, found {error.strerror}.') from error
    if content.startswith(_TORCH_ZIP) or _TORCH_MAGIC in content[:64]:
        raise UserError(
            f'{path}: expected a pickle of plain data, found a file of torch.save. The overlaps of '
            f'SAM-CP are such files: leave them out, overlaps are computed from the patches '
            f'whenever they are needed. Convert other tensors to NumPy arrays and pickle these.'
        )
    try:
        return plain(_Reader(io.BytesIO(content)).load())
    except RefusedError as error:
        raise UserError(
            f'{path}: expected containers, numbers, texts and NumPy arrays of numbers, found '
            f'{error}, which is not loaded since it could run code. If the file is yours, convert '
            f'tensors and other objects to these and pickle it again.'
        ) from error
    except Exception as error:  # a broken pickle fails in any way it likes
        raise UserError(
            f'{path}: expected a whole pickle, found one that cannot be read '
            f'({type(error).__name__}: {error}). Copy it again.'
        ) from error
