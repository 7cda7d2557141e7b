"""Outputs of the frozen part, computed once per image view."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmprompt.common.checkpoint import load_tensors, save_tensors, tensor_bytes
from mmprompt.common.errors import UserError
from mmprompt.common.files import cache_root

_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
_GIB = 1024**3
Features = dict[str, Tensor]


class FeatureCache:
    """Remember what a frozen encoder makes of each image.

    The key of an entry is the content of the network's input tensor together with ``fingerprint``,
    so it follows whatever the pipeline does (flips, crops, normalisation) and no entry of another
    base is ever taken. First memory is asked, then disk; only what is in neither is encoded, each
    image on its own, so that a value never depends on the batch in which it was first seen.

    Args:
        root: folder for the files; None keeps everything in memory, ``'auto'`` is
            `cache_root` / ``features``.
        fingerprint: of the frozen part's weights and whatever else changes its output.
        dtype: ``'fp32'`` (values exactly as encoded) or ``'bf16'`` (half the size; values rounded
            to 8 bits of mantissa, on the first look too).
        limit_gb: how much may lie under ``root``, GiB. When it is reached nothing more is written.
        memory_gb: how much is held in memory, GiB; the least recently used entry leaves first.

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
        self.expected_views: int | None = None
        self._memory: OrderedDict[str, Features] = OrderedDict()
        self._memory_used = 0
        self._disk_used = _folder_size(self.root) if self.root else 0
        self._announced = False
        self._full = False

    def __len__(self) -> int:
        """How many entries are in memory."""
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
            Dict of (B, …) float32 tensors on the device of ``images``.
        """
        found = [self._get(image, encode) for image in images]
        return {
            name: torch.stack([f[name] for f in found]).to(images.device, torch.float32)
            for name in found[0]
        }

    def _get(self, image: Tensor, encode: Callable[[Tensor], Features]) -> Features:
        key = self._key(image)
        entry = self._memory.get(key)
        if entry is not None:
            self._memory.move_to_end(key)
            return entry
        entry = self._read(key)
        if entry is None:
            dtype = _DTYPES[self.dtype]
            made = encode(image[None])
            entry = {k: v[0].detach().to('cpu', dtype).clone() for k, v in made.items()}
            self._announce(entry)
            self._write(key, entry)
        self._remember(key, entry)
        return entry

    def _key(self, image: Tensor) -> str:
        kind = f'{self.fingerprint}\0{self.dtype}\0{tuple(image.shape)}\0'
        digest = hashlib.sha256(kind.encode())
        digest.update(tensor_bytes(image.to(torch.float32)))
        return digest.hexdigest()

    def _path(self, key: str) -> Path:
        return self.root / self.fingerprint[:16] / self.dtype / key[:2] / f'{key}.safetensors'

    def _read(self, key: str) -> Features | None:
        """Read an entry; a damaged or foreign one counts as missing and is made again."""
        if self.root is None or not self._path(key).is_file():
            return None
        try:
            entry, metadata = load_tensors(self._path(key))
        except (UserError, OSError):
            metadata, entry = {}, {}
        if metadata == self._metadata(key, entry):
            return entry
        print_log(f'feature cache: {self._path(key)} is damaged or foreign; made again', 'current')
        return None

    def _write(self, key: str, entry: Features) -> None:
        if self.root is None or self._full:
            return
        path = self._path(key)
        old = path.stat().st_size if path.is_file() else 0
        if self._disk_used + _size(entry) - old > self.limit:
            self._full = True
            print_log(
                f'feature cache: {self.root} holds {self._disk_used / _GIB:.2f} GiB and its limit '
                f'is {self.limit / _GIB:.2f}; nothing more is written. Delete what is old '
                f'there, or raise limit_gb.',
                'current',
            )
            return
        try:
            save_tensors(path, entry, self._metadata(key, entry))
        except OSError as error:
            self._full = True
            print_log(f'feature cache: cannot write under {self.root}: {error}', 'current')
            return
        self._disk_used += path.stat().st_size - old

    def _metadata(self, key: str, entry: Features) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in sorted(entry):
            digest.update(f'{name}\0{tuple(entry[name].shape)}\0'.encode())
            digest.update(tensor_bytes(entry[name]))
        return {
            'format': '1',
            'kind': 'features',
            'key': key,
            'base_fingerprint': self.fingerprint,
            'checksum': digest.hexdigest(),
        }

    def _remember(self, key: str, entry: Features) -> None:
        size = _size(entry)
        if size > self.memory_limit:
            return
        self._memory[key] = entry
        self._memory_used += size
        while self._memory_used > self.memory_limit:
            _, dropped = self._memory.popitem(last=False)
            self._memory_used -= _size(dropped)

    def _announce(self, entry: Features) -> None:
        """Print once what the cache will take."""
        if self._announced:
            return
        self._announced = True
        size = _size(entry)
        text = f'feature cache: {size / 1024**2:.2f} MiB per image view ({self.dtype})'
        if self.expected_views:
            total = size * self.expected_views / _GIB
            text += f', {total:.2f} GiB for {self.expected_views} views'
        text += f'; memory takes {self.memory_limit // size:,} views'
        if self.root is not None:
            free = max(self.limit - self._disk_used, 0)
            text += f', {self.root} takes {free // size:,} more within {self.limit / _GIB:g} GiB'
        print_log(text, 'current')


def _size(entry: Features) -> int:
    return max(1, sum(v.numel() * v.element_size() for v in entry.values()))


def _folder_size(root: Path) -> int:
    return sum(p.stat().st_size for p in root.rglob('*.safetensors')) if root.is_dir() else 0
