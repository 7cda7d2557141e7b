"""Where the patches of a picture come from: a store, or a generator whose answers are kept."""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmprompt.apis.patches.generate import build_generator
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.common.patch_format import DamagedError, pack, shape, unpack
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.patches import other_file
from mmprompt.foundation.patch_generators import GENERATORS, PatchGenerator
from mmprompt.foundation.sam.everything import EverythingSettings
from mmprompt.registry import MODELS

SUFFIX = '.patches'


class _Missing(UserError):
    """A store that can be read has no patches of a picture."""


class PatchSource:
    """Patches of any picture, each made once.

    Args:
        generator: what makes patches; None if all are in the store.
        store: finished store, asked first for pictures that are files.
        folder: where made patches are kept, one file per picture, found again by its pixels and
            the generator's settings whatever the picture is called; None keeps none.
        check_image: whether the store's patches must have been made of this very file, see
            `LoadPatches`.

    Raises:
        UserError: there is neither a generator nor a store, or the store cannot be read.
    """

    def __init__(
        self,
        generator: PatchGenerator | None = None,
        store: str | os.PathLike | None = None,
        folder: str | os.PathLike | None = None,
        check_image: bool = True,
    ) -> None:
        if generator is None and store is None:
            raise UserError(
                f'patches: expected a generator ({", ".join(GENERATORS)}) or a store of patches, '
                f'found neither. Give --generator NAME or --patches STORE.'
            )
        self.generator, self.folder = generator, None if folder is None else Path(folder)
        self.store = None if store is None else PatchStore(store)
        if self.store is not None:
            _ = self.store.meta  # a wrong path is no picture without patches
        self.check_image = check_image

    def facts(self) -> dict[str, Any]:
        """What decides which patches there are, plain values.

        Raises:
            UserError: weights or the store cannot be read.
        """
        found: dict[str, Any] = {}
        if self.generator is not None:
            found |= described(self.generator)
        if self.store is not None:
            meta = self.store.meta
            found['store'] = dict(generator=meta['generator'], settings=meta.get('settings'))
        return json.loads(json.dumps(found))

    def __call__(self, picture: np.ndarray, path: str | os.PathLike | None = None) -> PatchSet:
        """Patches of an RGB picture (H, W, 3) uint8, as it is viewed.

        Args:
            picture: the pixels.
            path: the file that they are from, by which a store knows them.

        Raises:
            UserError: the store has none of this picture, or those of another one of this name,
                and there is no generator; or the generator cannot be used.
        """
        if self.store is not None and (path is not None or self.generator is None):
            found = self._stored(picture, path)
            if found is not None:
                return found
        return self._made(picture)

    def _stored(self, picture: np.ndarray, path: str | os.PathLike | None) -> PatchSet | None:
        try:
            if path is None:
                raise _Missing('an array: expected the path of a file, by which stores know it.')
            try:
                key = self.store.find(path)
            except UserError as error:
                raise _Missing(str(error)) from error
            return self._checked(key, picture, path)
        except _Missing as error:
            if self.generator is None:
                raise UserError(
                    f'{error} Or give --generator, which makes patches as asked.'
                ) from error
            return None

    def _checked(self, key: str, picture: np.ndarray, path: str | os.PathLike) -> PatchSet:
        """The store's patches under a key; `_Missing` if they are of another picture."""
        patches = self.store.get(key)
        differ = None
        if patches.size != picture.shape[:2]:
            sizes = (patches.size, picture.shape[:2])
            differ = [f'{h}x{w} pixels (height x width)' for h, w in sizes]
        elif self.check_image and (digests := other_file(self.store, key, path)) is not None:
            differ = [f'a file of CRC-32 {digest:08x}' for digest in digests]
        if differ is None:
            return patches
        line = (
            f'{path}: expected patches of this picture, {differ[1]}, found those of another one, '
            f'{differ[0]}, in {self.store.path} under {key!r}.'
        )
        if self.generator is not None:
            print_log(f'{line} They are made anew.', 'current')
        raise _Missing(f'{line} Make them of these pictures.')

    def _made(self, picture: np.ndarray) -> PatchSet:
        if self.folder is None:
            return self.generator(picture)
        kept = self.folder / self._settings_key() / f'{_pixels_key(picture)}{SUFFIX}'
        try:
            data = kept.read_bytes()
            shape(data)
        except (OSError, DamagedError):
            patches = self.generator(picture)
            with atomic_file(kept) as stream:
                stream.write(pack(patches))
            return patches
        return unpack(data)

    def _settings_key(self) -> str:
        text = json.dumps(described(self.generator), sort_keys=True)
        return f'{self.generator.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}'


def _pixels_key(picture: np.ndarray) -> str:
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()[:32]


def described(generator: PatchGenerator) -> dict[str, Any]:
    """Name and settings of a generator, as stores and recipes keep them."""
    return dict(generator=generator.name, settings=generator.settings())


def generator_like(trained: Mapping[str, Any] | None, options: Mapping[str, Any]) -> PatchGenerator:
    """The generator of a training, with `options` over its settings.

    Args:
        trained: `generator` and `settings`, as a store's meta and a recipe's `patches` have them;
            or `missing`, where a store with them should be.
        options: arguments of the generator; the weights must be named here, unless they lie where
            the generator looks by itself.

    Raises:
        UserError: it is not known what made the patches, or it cannot be built from a name.
    """
    name = (trained or {}).get('generator')
    kind = _kind_of(name)
    if kind is None:
        found = f'patches by {name!r}' if name else 'no patches'
        lost = (trained or {}).get('missing')
        lost = f", and the store of the config's training, {lost}, not there" if lost else ''
        raise UserError(
            f'patches: expected the name of a generator with the weights or with --generator, '
            f'found {found} with the weights{lost}. Give --generator, one of '
            f'{", ".join(GENERATORS)}, or --patches STORE.'
        )
    known = _arguments(kind)
    settings = {k: v for k, v in (trained.get('settings') or {}).items() if k in known}
    settings.pop('weights', None)  # which weights it were is told by their content, not their name
    return build_generator(kind.__name__, {**settings, **options})


def _kind_of(name: str | None) -> type[PatchGenerator] | None:
    kinds = [kind for kind in MODELS.module_dict.values() if inspect.isclass(kind)]
    kinds = [kind for kind in kinds if issubclass(kind, PatchGenerator)]
    return next((kind for kind in kinds if getattr(kind, 'name', None) == name), None)


def _arguments(kind: type) -> set[str]:
    """Names that a generator's constructor takes, those of everything mode among them."""
    found: set[str] = set()
    for each in kind.__mro__:
        if '__init__' in vars(each) and each is not object:
            parameters = inspect.signature(each.__init__).parameters.values()
            found |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return found
    return found | {field.name for field in fields(EverythingSettings)}


def differences(trained: Mapping[str, Any] | None, used: Mapping[str, Any]) -> list[str]:
    """What is otherwise with the patches in use than with those of the training, in words.

    Args:
        trained, used: `generator` and `settings`; None or others if it is not known.
    """
    if not (trained or {}).get('generator'):
        return []
    if trained.get('generator') != used.get('generator'):
        return [f'by {used.get("generator")}, not by {trained.get("generator")}']
    pairs = [json.loads(json.dumps(each.get('settings') or {})) for each in (trained, used)]
    before, now = pairs
    return [
        f'{name} {now[name]}, not {before[name]}'
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
