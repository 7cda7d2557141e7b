"""Outputs of the frozen part, computed once per image view."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmprompt.common.checkpoint import map_tensors, save_tensors, tensor_bytes
from mmprompt.common.errors import UserError
from mmprompt.common.files import cache_root

_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
_GIB = 1024**3
_FORMAT = '2'
_MAPPED = 4096  # files held open at once; Linux allows some 65,000 mappings per process
_COUNT_EVERY = 32  # writes after which the folder is counted again: other processes write too
Features = dict[str, Tensor]


class _Entry(NamedTuple):
    """Features of one view.

    Attributes:
        tensors: in the cache's precision, as they lie in memory: (H, W, C) where `maps` says so.
        maps: per name the dtype that was encoded, and whether its channels lay last in memory.
    """

    tensors: Features
    maps: dict[str, list]

    @property
    def size(self) -> int:
        """Bytes."""
        return max(1, sum(v.numel() * v.element_size() for v in self.tensors.values()))

    def view(self, name: str) -> Tensor:
        """A map with its channels first, wherever they lie in memory."""
        tensor = self.tensors[name]
        return tensor.permute(2, 0, 1) if self.maps[name][1] else tensor


class FeatureCache:
    """Remember what a frozen encoder makes of each image.

    The key of an entry is the content of the network's input tensor, ``fingerprint``, and the
    precision and kind of device of the computation, so it follows whatever the pipeline does
    (flips, crops, normalisation) and no entry of another base is ever taken. What is in neither
    memory nor a file is encoded, each image on its own, so that a value never depends on the batch
    in which it was first seen. Files are mapped into memory, not read: the system keeps what fits.

    Args:
        root: folder for the files; None keeps everything in memory, ``'auto'`` is
            `cache_root` / ``features``.
        fingerprint: of the frozen part's weights and whatever else changes its output.
        dtype: ``'fp32'`` (values exactly as encoded) or ``'bf16'`` (half the size; values rounded
            to 8 bits of mantissa, on the first look too).
        limit_gb: how much may lie under ``root``, GiB. When it is reached nothing more is written.
        memory_gb: how much of what is in no file is held in memory, GiB; the least recently used
            entry leaves first.

    Raises:
        UserError: for an unknown dtype.
    """

    def __init__(
        self,
        root: str | os.PathLike | None,
        fingerprint: str,
        dtype: str = 'fp32',
        limit_gb: float = 20.0,
        memory_gb: float = 2.0,
    ) -> None:
        if dtype not in _DTYPES:
            raise UserError(
                f'feature cache: expected dtype {" or ".join(_DTYPES)}, found {dtype!r}. Correct '
                f'the value in the config.'
            )
        self.fingerprint = fingerprint
        self.dtype = dtype
        self.limit = int(limit_gb * _GIB)
        self.memory_limit = int(memory_gb * _GIB)
        self.root = cache_root() / 'features' if root == 'auto' else root and Path(root)
        #: How many views a training shows, for the estimate; see `views_of`.
        self.expected_views: int | None = None
        self._memory: OrderedDict[str, _Entry] = OrderedDict()
        self._memory_used = 0
        self._mapped: OrderedDict[str, _Entry] = OrderedDict()
        self._disk_used = _folder_size(self.root) if self.root else 0
        self._written = 0
        self._announced = False
        self._full = False

    def __len__(self) -> int:
        """How many entries are in memory alone."""
        return len(self._memory)

    def __deepcopy__(self, memo: dict) -> 'FeatureCache':
        return self  # an averaged copy of the model shares the cache

    @torch.no_grad()
    def fetch(self, images: Tensor, encode: Callable[[Tensor], Features]) -> Features:
        """Return the features of a batch.

        Args:
            images: (B, 3, H, W), as the network takes them.
            encode: (b, 3, H, W) -> dict of (b, …) tensors; called with b = 1 for what is missing.

        Returns:
            Dict of (B, …) tensors on the device of ``images``, of the precision and the memory
            layout that ``encode`` gave them: what computes with them then does the same sums.
        """
        found = [self._get(image, encode) for image in images]
        return {name: _stacked(found, name, images.device) for name in found[0].maps}

    def _get(self, image: Tensor, encode: Callable[[Tensor], Features]) -> _Entry:
        key = self._key(image)
        for held in (self._memory, self._mapped):
            if key in held:
                held.move_to_end(key)
                return held[key]
        entry = self._read(key)
        if entry is None:
            made = encode(image[None])
            entry = _entry({k: v[0] for k, v in made.items()}, _DTYPES[self.dtype])
            self._announce(entry)
            if not self._write(key, entry):
                self._remember(key, entry)
        return entry

    def _key(self, image: Tensor) -> str:
        # What a product is computed in, autocast included.
        precision = (image.new_ones(1, 1) @ image.new_ones(1, 1)).dtype
        kind = (precision, image.dtype, image.device.type, tuple(image.shape))
        parts = (_FORMAT, self.fingerprint, self.dtype, *kind)
        digest = hashlib.sha256('\0'.join(map(str, parts)).encode())
        digest.update(tensor_bytes(image))
        return digest.hexdigest()

    def _path(self, key: str) -> Path:
        return self.root / self.fingerprint[:16] / self.dtype / key[:2] / f'{key}.safetensors'

    def _read(self, key: str) -> _Entry | None:
        """Map an entry's file; a damaged or foreign one counts as missing and is made again."""
        if self.root is None or not self._path(key).is_file():
            return None
        try:
            tensors, metadata = map_tensors(self._path(key))
            entry = _Entry(tensors, json.loads(metadata['maps']))
            whole = metadata == self._metadata(key, entry)
        except (UserError, OSError, KeyError, ValueError, RuntimeError):
            whole = False
        if not whole:
            text = f'feature cache: {self._path(key)} is damaged or foreign; made again'
            print_log(text, 'current')
            return None
        self._mapped[key] = entry
        if len(self._mapped) > _MAPPED:
            self._mapped.popitem(last=False)
        return entry

    def _write(self, key: str, entry: _Entry) -> bool:
        """Whether the entry now lies in a file."""
        if self.root is None or self._full:
            return False
        if self._written % _COUNT_EVERY == _COUNT_EVERY - 1:
            self._disk_used = _folder_size(self.root)
        self._written += 1
        path = self._path(key)
        old = path.stat().st_size if path.is_file() else 0
        if self._disk_used + entry.size - old > self.limit:
            self._full = True
            print_log(
                f'feature cache: {self.root} holds {self._disk_used / _GIB:.2f} GiB and its limit '
                f'is {self.limit / _GIB:.2f}; nothing more is written. Delete what is old '
                f'there, or raise limit_gb.',
                'current',
            )
            return False
        try:
            save_tensors(path, entry.tensors, self._metadata(key, entry))
        except OSError as error:
            self._full = True
            print_log(f'feature cache: cannot write under {self.root}: {error}', 'current')
            return False
        self._disk_used += path.stat().st_size - old
        return True

    def _metadata(self, key: str, entry: _Entry) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in sorted(entry.tensors):
            digest.update(f'{name}\0{tuple(entry.tensors[name].shape)}\0'.encode())
            digest.update(tensor_bytes(entry.tensors[name]))
        return {
            'format': _FORMAT,
            'kind': 'features',
            'key': key,
            'base_fingerprint': self.fingerprint,
            'maps': json.dumps(entry.maps, sort_keys=True),
            'checksum': digest.hexdigest(),
        }

    def _remember(self, key: str, entry: _Entry) -> None:
        if entry.size > self.memory_limit:
            return
        self._memory[key] = entry
        self._memory_used += entry.size
        while self._memory_used > self.memory_limit:
            _, dropped = self._memory.popitem(last=False)
            self._memory_used -= dropped.size

    def _announce(self, entry: _Entry) -> None:
        """Print what the cache will take, before the first entry is kept."""
        if self._announced:
            return
        self._announced = True
        size = entry.size
        text = f'feature cache: {size / 1024**2:.2f} MiB per image view ({self.dtype})'
        if self.expected_views:
            total = size * self.expected_views / _GIB
            text += f', {total:.2f} GiB for {self.expected_views} views'
        text += f'; memory takes {self.memory_limit // size:,} views'
        room = self.memory_limit // size
        if self.root is not None:
            free = max(self.limit - self._disk_used, 0)
            room += free // size
            text += f', {self.root} takes {free // size:,} more within {self.limit / _GIB:g} GiB'
        if self.expected_views and room < self.expected_views:
            text += (
                f'. Up to {self.expected_views - room:,} views find no place and are computed each '
                f"time: raise limit_gb or memory_gb, or set dtype='bf16'"
            )
        print_log(text, 'current')


def views_of(dataset: Any) -> int | None:
    """How many different inputs a training dataset gives: images times flips.

    None where that is unknown: a pipeline with another random step, or none to look at.
    """
    pipeline = getattr(dataset, 'pipeline', None)
    views = 1
    for step in getattr(pipeline, 'transforms', [None]):
        name = type(step).__name__.removeprefix('Det')
        if name == 'RandomFlip':
            views *= _flips(step.prob, step.direction)
        elif step is None or name.startswith(('Random', 'PhotoMetric')):
            return None
    return views * len(dataset)


def _flips(prob: float | Sequence[float] | None, direction: str | Sequence[str]) -> int:
    """Ways in which an image may be mirrored, not at all included."""
    chances = prob if isinstance(prob, (list, tuple)) else [prob or 0.0]
    if len(chances) == 1 and not isinstance(direction, str):
        chances = [chances[0] / len(direction)] * len(direction)
    return sum(chance > 0 for chance in chances) + (sum(chances) < 1)


def _channels_last(tensor: Tensor) -> bool:
    """Whether a map (C, H, W) lies in memory as (H, W, C)."""
    if tensor.dim() != 3 or tensor.is_contiguous():
        return False
    return tensor.permute(1, 2, 0).is_contiguous()


def _entry(made: Features, dtype: torch.dtype) -> _Entry:
    tensors, maps = {}, {}
    for name, tensor in made.items():
        last = _channels_last(tensor)
        # Half precision holds its values in fewer bits than float32 would.
        kept = tensor.dtype if tensor.element_size() < 4 else dtype
        lying = tensor.permute(1, 2, 0) if last else tensor
        copy = torch.empty(lying.shape, dtype=kept)
        tensors[name] = copy.copy_(lying.detach())
        maps[name] = [str(tensor.dtype).removeprefix('torch.'), last]
    return _Entry(tensors, maps)


def _stacked(entries: Sequence[_Entry], name: str, device: torch.device) -> Tensor:
    """One map of a batch, (B, …), as it was encoded."""
    dtype, last = entries[0].maps[name]
    rows = [entry.view(name).permute(1, 2, 0) if last else entry.view(name) for entry in entries]
    batch = torch.stack(rows).to(device, getattr(torch, dtype))
    return batch.permute(0, 3, 1, 2) if last else batch


def _folder_size(root: Path) -> int:
    return sum(p.stat().st_size for p in root.rglob('*.safetensors')) if root.is_dir() else 0
