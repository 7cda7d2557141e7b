"""Training checkpoints without frozen weights, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from torch import nn

from mmprompt.common.files import atomic_file
from mmprompt.common.freeze import frozen_roots, under_roots
from mmprompt.common.recipe import patches_of
from mmprompt.common.strict_loader import to_plain
from mmprompt.registry import HOOKS

BACKEND = 'AtomicLocalBackend'
FORMAT = 1


class AtomicLocalBackend(LocalBackend):
    """The local disk, where a file is written to a temporary name and then renamed."""

    def put(self, obj: bytes, filepath: str) -> None:
        with atomic_file(filepath) as stream:
            stream.write(obj)


register_backend(BACKEND, AtomicLocalBackend, force=True)


def bare_model(runner: Any) -> nn.Module:
    """Return the runner's model without a distributed wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class PromptCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook for models with frozen parts.

    Same arguments and file names. Differences: keys under frozen roots are left out of
    ``state_dict`` and ``ema_state_dict`` (after EMAHook has used them; `FrozenBaseHook` puts them
    back on load); everything else becomes plain values, so that ``weights_only`` loads the file on
    every torch; an entry ``mmprompt`` says what base, patches and names of classes they belong to;
    a file appears under its name only when it is whole; an older file is deleted only when the
    newer one stands. Local disks only.
    """

    # After EMAHook (NORMAL), which looks its keys up in the complete state dict.
    priority = 'VERY_LOW'

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args={**(backend_args or {}), 'backend': BACKEND}, **kwargs)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model = bare_model(runner)
        roots = frozen_roots(model)
        checkpoint['state_dict'] = _without(checkpoint['state_dict'], roots)
        if 'ema_state_dict' in checkpoint:
            averaged = [f'module.{root}' if root else 'module' for root in roots]
            checkpoint['ema_state_dict'] = _without(checkpoint['ema_state_dict'], averaged)
        checkpoint['mmprompt'] = {
            'format': FORMAT,
            'frozen_roots': roots,
            'base_fingerprint': getattr(model, 'base_fingerprint', None),
            'recipe': _recipe(runner, model),
        }
        plain = to_plain(checkpoint)
        checkpoint.clear()
        checkpoint.update(plain)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with self._old_files_stay():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        with self._old_files_stay():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _old_files_stay(self) -> Iterator[None]:
        """Put off what the parent deletes before it writes until it has written."""
        real = self.file_backend
        self.file_backend = deferred = _DeferredRemoval(real)
        try:
            yield
        finally:
            self.file_backend = real
        deferred.remove_now()


class _DeferredRemoval:
    """A file backend that remembers what to delete."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._doomed: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._doomed[path] = os.stat(path).st_ino

    def remove_now(self) -> None:
        for path, inode in self._doomed.items():
            # A new file may have taken the name of the doomed one; it has another inode.
            if os.path.exists(path) and os.stat(path).st_ino == inode:
                self._backend.remove(path)


def _recipe(runner: Any, model: nn.Module) -> dict:
    """Of `recipe_of` what is needed to test the weights, and the names that were encoded."""
    facts = {'patches': patches_of(runner), 'names': getattr(model, 'encoded_names', None)}
    return {key: value for key, value in facts.items() if value is not None}


def _without(state: dict, roots: list[str]) -> dict:
    return {k: v for k, v in state.items() if not under_roots(k, roots)}
