"""What every prompt training needs around the model: base, seeds, a guard and the prompt file."""

import math
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.hooks import Hook

from mmprompt.common.checkpoint_hook import bare_model
from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import views_of
from mmprompt.common.freeze import frozen_roots, under_roots
from mmprompt.common.recipe import recipe_of
from mmprompt.registry import HOOKS

# Keeps the seeds of training steps apart from those of samples (mmprompt.common.seeding).
_STEP_STREAM = 1


@HOOKS.register_module()
class FrozenBaseHook(Hook):
    """Load the frozen base before anything runs, and complete checkpoints that lack it.

    ``before_run`` calls ``model.load_base()`` if the model has one: `Runner.test` never initialises
    weights, and building a model reads no file. ``model.check_dataset(metainfo)``, if there is one,
    is called before training, validation and testing; ``model.expect_views(count)`` before training
    with the number of different inputs that will come, see `views_of`. On loading a checkpoint the
    frozen keys that `PromptCheckpointHook` left out are filled in from the model, so that none is
    reported missing.

    Raises:
        UserError: when a checkpoint was trained on another base, or whatever the model raises.
    """

    # Before EMAHook, which copies the model in before_run.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Any) -> None:
        model = bare_model(runner)
        if hasattr(model, 'load_base'):
            model.load_base()
            for parameter in model.parameters():
                if parameter.requires_grad:  # what a process may have drawn
                    broadcast(parameter.data)

    def before_train(self, runner: Any) -> None:
        self._check_dataset(runner, runner.train_dataloader)
        model = bare_model(runner)
        if hasattr(model, 'expect_views'):
            model.expect_views(views_of(runner.train_dataloader.dataset))

    def before_val(self, runner: Any) -> None:
        self._check_dataset(runner, runner.val_dataloader)

    def before_test(self, runner: Any) -> None:
        self._check_dataset(runner, runner.test_dataloader)

    def _check_dataset(self, runner: Any, loader: Any) -> None:
        model = bare_model(runner)
        if hasattr(model, 'check_dataset'):
            model.check_dataset(getattr(loader.dataset, 'metainfo', {}))

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model = bare_model(runner)
        check_base(model, checkpoint.get('mmprompt') or {})
        if hasattr(model, 'trained_with'):
            note_training(model, checkpoint)
        roots = frozen_roots(model)
        if not roots or 'state_dict' not in checkpoint:
            return
        frozen = {k: v for k, v in model.state_dict().items() if under_roots(k, roots)}
        for key, value in frozen.items():
            checkpoint['state_dict'].setdefault(key, value)
            if 'ema_state_dict' in checkpoint:
                checkpoint['ema_state_dict'].setdefault(f'module.{key}', value)
        _settle_dataset_meta(runner, checkpoint)


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed random, numpy and torch before each training step from (seed, rank, iteration).

    What a step draws (dropout, sampled points) then depends on nothing that happened before it, so
    a resumed run continues exactly, validation and data workers notwithstanding. Saving the state
    of the generators would not do: building a data loader draws from them.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        words = [_STEP_STREAM, runner.seed or 0, runner.rank, runner.iter]
        state = np.random.SeedSequence(words).generate_state(3)
        random.seed(int(state[0]))
        np.random.seed(state[1])
        torch.manual_seed(int(state[2]))


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop at the first loss that is NaN or infinite, before anything is saved.

    Of several processes each looks at its own losses; what the log then shows are their means.

    Raises:
        UserError: naming iteration, loss and images.
    """

    # Before RuntimeInfoHook, which notes the losses for the log.
    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {k: float(torch.as_tensor(v).detach()) for k, v in (outputs or {}).items()}
        bad = {k: v for k, v in values.items() if not math.isfinite(v)}
        if not bad:
            if get_world_size() > 1:
                means = torch.tensor(list(values.values()), dtype=torch.float64)
                all_reduce(means, 'mean')
                outputs.update(zip(values, means))
            return
        shown = ', '.join(f'{k} = {v}' for k, v in bad.items())
        images = ', '.join(_image_names(data_batch)) or 'unknown'
        raise UserError(
            f'iteration {runner.iter + 1}: expected finite losses, found {shown} on the images '
            f'{images}. Nothing of this step was saved. Lower the learning rate '
            f'(--cfg-options optim_wrapper.optimizer.lr=…), look at these images and labels, or '
            f'continue from the last checkpoint with --resume.'
        )


@HOOKS.register_module()
class PromptFileHook(Hook):
    """Write what was learned into the work directory after training.

    A model says what in ``export_files()``: `PromptFile` by file name, usually
    ``prompt.safetensors`` alone; none if nothing was learned beside a frozen base. The first is the
    one to give to ``load_prompt(path)``, which finds the others beside it. A model without the
    method leaves checkpoints only.
    """

    # After CheckpointHook.
    priority = 'LOWEST'

    def after_train(self, runner: Any) -> None:
        model = bare_model(runner)
        if runner.rank != 0 or not hasattr(model, 'export_files'):
            return
        for filename, file in model.export_files().items():
            for key, value in recipe_of(runner).items():
                file.recipe.setdefault(key, value)
            path = file.save(f'{runner.work_dir}/{filename}')
            runner.logger.info(
                f'{file.kind.capitalize()} file: {path} ({path.stat().st_size:,} bytes)'
            )


def note_training(model: Any, checkpoint: dict) -> None:
    """Tell a model with which classes a checkpoint was trained, if that says them.

    Args:
        model: with ``trained_with(classes, names)``.
        checkpoint: the names in its entry ``mmprompt`` are those that were encoded; one without
            was written before there were such.
    """
    classes = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
    recipe = (checkpoint.get('mmprompt') or {}).get('recipe') or {}
    if classes:
        model.trained_with(classes, recipe.get('names'))


def check_base(model: Any, record: dict) -> None:
    """Compare the frozen base of a model with that of a checkpoint.

    Args:
        model: nothing is compared if it has no ``base_fingerprint``, or None.
        record: the entry ``mmprompt`` of the checkpoint, as `PromptCheckpointHook` writes it.

    Raises:
        UserError: they are two different ones.
    """
    trained_on, present = record.get('base_fingerprint'), getattr(model, 'base_fingerprint', None)
    if trained_on and present and trained_on != present:
        raise UserError(
            f'checkpoint: expected a base model with fingerprint {trained_on}, on which it was '
            f'trained, found {present}. Use the config of that training, or train anew.'
        )


def _image_names(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return [str(getattr(s, 'img_path', '?')) for s in samples or []]


def _settle_dataset_meta(runner: Any, checkpoint: dict) -> None:
    """Spare the user mmengine's warning when the metainfo is equal but pickles differently."""
    # Not runner.train_loop: that property builds the loop, also for a test.
    loader = getattr(runner._train_loop, 'dataloader', None)
    present = getattr(getattr(loader, 'dataset', None), 'metainfo', None)
    meta = checkpoint.get('meta') or {}
    try:
        if present is not None and bool(meta.get('dataset_meta') == present):
            meta['dataset_meta'] = present
    except ValueError:  # arrays in the metainfo have no single truth value
        pass
