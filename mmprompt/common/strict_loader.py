"""Reading torch checkpoints without executing what is in them.

mmengine falls back to full unpickling when the safe load fails, and its official family never
tries the safe one; `install_strict_loader` replaces both. Our own checkpoints hold only tensors and
plain containers (`to_plain`), because torch before 2.5 has no way to allow more. Other people's
checkpoints may also hold numpy values and mmengine's `HistoryBuffer`; these are read by an
unpickler that knows a short list of harmless classes and refuses everything else.
"""

import logging
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmprompt.common.errors import UserError
from mmprompt.common.shipped import resolve_weights

_TAG = '__mmprompt__'
_PLAIN = (str, bytes, bool, int, float, type(None))
_NUMPY_CORES = ('numpy.core', 'numpy._core')


def install_strict_loader() -> None:
    """Make every mmengine checkpoint load of this process strict, whatever the address.

    Local files, the package's own (``mmprompt://NAME``) and http(s) are read strictly; named model
    zoos are resolved to their address first; private storages (``s3://``, ``petrel://``,
    ``pavi://``) are refused. Idempotent.
    """
    CheckpointLoader.register_scheme('', load_from_local_strictly, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http_strictly, force=True)
    zoo = ['torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://']
    CheckpointLoader.register_scheme(zoo, load_from_zoo_strictly, force=True)
    private = ['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
    CheckpointLoader.register_scheme(private, load_from_nowhere, force=True)
    CheckpointLoader.register_scheme('mmprompt://', load_shipped_strictly, force=True)


def load_strict(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Load a torch checkpoint; only tensors, plain containers, numpy arrays and log histories.

    Raises:
        UserError: if the file is missing, cut, no checkpoint, or holds any other object. Nothing in
            the file has been executed then.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: expected a checkpoint, found no such file. Correct the path.')
    if path.suffix == '.safetensors':  # e.g. as `checkpoint` of a backbone's `init_cfg`
        return _load_safetensors(path)
    with open(path, 'rb') as stream:
        starts_as_zip = stream.read(4) == b'PK\x03\x04'
    if starts_as_zip and not zipfile.is_zipfile(path):
        raise UserError(f'{path}: the checkpoint is cut: its end is missing. Copy it again.')
    try:
        checkpoint = _load(path, map_location)
    except pickle.UnpicklingError as error:
        raise UserError(
            f'{path}: expected a checkpoint of tensors and plain values, found something else: '
            f'{_first_line(error)} Nothing in it was executed. If you trust its author, load '
            f"it yourself and save its ['state_dict'] as safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f'{path}: expected a torch checkpoint, found a damaged or foreign file: '
            f'{_first_line(error)} Copy it again or give another file.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'{path}: expected a checkpoint with a dict at its top, found '
            f'{type(checkpoint).__name__}. Give a training checkpoint or a state dict.'
        )
    try:
        return _disarm(from_plain(checkpoint))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f'{path}: expected log histories and arrays as mmprompt writes them, found '
            f'{_first_line(error)} Give another checkpoint.'
        ) from error


def _load_safetensors(path: Path) -> dict:
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise UserError(
            f'{path}: expected a safetensors file, found a damaged one: {error}. Copy or write it '
            f'again.'
        ) from error


def to_plain(value: Any, where: str = 'checkpoint') -> Any:
    """Copy nested containers with everything in them as tensors and plain values.

    Numpy scalars become Python numbers; arrays, sets and `HistoryBuffer` become tagged dicts that
    `from_plain` turns back. Anything else (a bound method in a scheduler's state) is left out with
    a warning that names it.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, (np.bool_, np.integer, np.floating, np.str_)):
        return value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, _PLAIN):  # enums and other subclasses pickle by reference to their class
        return next(t(value) for t in (str, bytes, int, float) if isinstance(value, t))
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        data = [torch.as_tensor(np.asarray(x, np.float64)) for x in (logs, counts)]
        return {_TAG: 'history', 'data': data, 'max_length': value.max_length}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {_TAG: 'array', 'dtype': value.dtype.str, 'data': value.tolist()}
    if isinstance(value, (set, frozenset)):
        return {_TAG: 'set', 'data': [to_plain(v, where) for v in sorted(value, key=repr)]}
    if isinstance(value, (list, tuple)):
        items = [to_plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        kept = {k: to_plain(v, f'{where}.{k}') for k, v in value.items()}
        dropped = [k for k, v in value.items() if v is not None and kept[k] is None]
        return {k: v for k, v in kept.items() if k not in dropped}
    print_log(
        f'{where}: a {type(value).__name__} is not kept in checkpoints', 'current', logging.WARNING
    )
    return None


def from_plain(value: Any) -> Any:
    """Undo `to_plain`."""
    if isinstance(value, _StrangersHistory):
        return value.history()
    if isinstance(value, dict):
        kind = value.get(_TAG)
        if kind == 'history':
            logs, counts = (x.tolist() for x in value['data'])
            return HistoryBuffer(logs, counts, value['max_length'])
        if kind == 'array':
            return np.array(value['data'], dtype=value['dtype'])
        if kind == 'set':
            return {from_plain(v) for v in value['data']}
        if isinstance(value, OrderedDict):  # keeps a state dict's _metadata
            for k in value:
                value[k] = from_plain(value[k])
            return value
        return {k: from_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(from_plain(v) for v in value)
    return value


def _load(path: Path, map_location: Any) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        if tarfile.is_tarfile(path) or _is_torchscript(path):
            raise
        return torch.load(
            path, map_location=map_location, pickle_module=_ListedPickle, weights_only=False
        )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith('constants.pkl') for n in archive.namelist())


def _disarm(checkpoint: dict) -> dict:
    """Drop the one plain string that mmengine's ``resume`` would execute as a Python config."""
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


class _StrangersHistory:
    """Stands in for a pickled HistoryBuffer, whose own __setstate__ changes its class.

    A HistoryBuffer also pickles its statistics as ``getattr(HistoryBuffer, name)``; `method`
    answers these calls, and no others, with nothing.
    """

    def __setstate__(self, state: dict) -> None:
        self.state = {k: state[k] for k in ('_log_history', '_count_history', 'max_length')}

    def history(self) -> HistoryBuffer:
        logs, counts = (self.state[k].tolist() for k in ('_log_history', '_count_history'))
        return HistoryBuffer(logs, counts, self.state['max_length'])

    @staticmethod
    def method(owner: Any, name: str) -> None:
        if owner is not _StrangersHistory:
            raise pickle.UnpicklingError(f'getattr({owner}, {name!r}) is not on the list of calls.')


class _ListedUnpickler(pickle.Unpickler):
    """Finds the classes and functions of a short list and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = _listed(module, name)
        if found is None:
            raise pickle.UnpicklingError(f'{module}.{name} is not on the list of safe classes.')
        return found


class _ListedPickle:
    """What ``torch.load(pickle_module=…)`` asks for."""

    __name__ = 'mmprompt'
    Unpickler = _ListedUnpickler

    @staticmethod
    def load(stream, **kwargs) -> Any:
        return _ListedUnpickler(stream, **kwargs).load()


def _listed(module: str, name: str) -> Any:
    """Return the listed object of that name or None; torch resolves its storages before it asks."""
    if (module, name) == ('collections', 'OrderedDict'):
        return OrderedDict
    if module in ('builtins', '__builtin__') and name in ('set', 'frozenset', 'complex'):
        return {'set': set, 'frozenset': frozenset, 'complex': complex}[name]
    if (module, name) == ('_codecs', 'encode'):
        return _encode
    if module == 'torch._utils' and name in (
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_parameter',
    ):
        return getattr(torch._utils, name)
    if (module, name) == ('torch.nn.parameter', 'Parameter'):
        return torch.nn.Parameter
    if module == 'torch' and name in ('Size', 'device'):
        return getattr(torch, name)
    if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    if module == 'mmengine.logging.history_buffer' and name == 'HistoryBuffer':
        return _StrangersHistory
    if module in ('builtins', '__builtin__') and name == 'getattr':
        return _StrangersHistory.method
    if module == 'numpy' and name in ('ndarray', 'dtype'):
        return getattr(np, name)
    core = np._core if np.__version__ >= '2' else np.core
    if module in [f'{c}.multiarray' for c in _NUMPY_CORES] and name in ('_reconstruct', 'scalar'):
        return getattr(core.multiarray, name)
    return None


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """``codecs.encode`` for the one encoding by which protocol 2 spells bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'_codecs.encode to {encoding!r} is not on the list.')
    return text.encode('latin1')


def load_from_local_strictly(filename: str, map_location: Any = None) -> dict:
    return load_strict(filename, map_location or 'cpu')


def load_shipped_strictly(filename: str, map_location: Any = None) -> dict:
    return load_strict(resolve_weights(filename), map_location or 'cpu')


def load_from_http_strictly(filename: str, map_location: Any = None) -> dict:
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / filename.split('?')[0].rsplit('/', 1)[-1]
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(filename, str(path))
        except OSError as error:
            raise UserError(
                f'{filename}: expected to download this checkpoint, found {error}. Download it '
                f'elsewhere and put it at {path}.'
            ) from error
    return load_strict(path, map_location or 'cpu')


def load_from_zoo_strictly(filename: str, map_location: Any = None) -> dict:
    from mmengine.runner import checkpoint as zoo

    scheme, name = filename.split('://', 1)
    if scheme in ('torchvision', 'modelzoo'):
        table = zoo.get_torchvision_models()
    elif scheme == 'mmcls':
        table = zoo.get_mmcls_models()
    else:
        table = zoo.get_external_models()
        name = zoo.get_deprecated_model_names().get(name, name)
    if name not in table:
        raise UserError(
            f'{filename}: expected a model of the {scheme} zoo, found no such name. Give a path.'
        )
    address = table[name]
    remote = address.startswith(('http://', 'https://'))
    load = load_from_http_strictly if remote else load_from_local_strictly
    loaded = load(address, map_location)
    return zoo._process_mmcls_checkpoint(loaded) if scheme == 'mmcls' else loaded


def load_from_nowhere(filename: str, map_location: Any = None) -> dict:
    raise UserError(
        f'{filename}: expected a local file or an http address, found a private storage, which '
        f'mmengine would unpickle unchecked. Download the file and give its path.'
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip('.')[:200] + '.'
