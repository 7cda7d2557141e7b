"""One run of mmengine's Runner as the command lines want it: guarded, brief, leaving no debris."""

import copy
import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmprompt.apis.cli import translate
from mmprompt.common.checkpoint import install_strict_loader
from mmprompt.common.errors import UserError
from mmprompt.common.processes import join, num_processes

EVERY_RUN = ('FrozenBaseHook', 'StepSeedHook', 'NonFiniteLossHook', 'PromptFileHook')
GUARDED = ('GuardedDataset', 'FewShotDataset')
_RUN_FOLDER = re.compile(r'\d{8}_\d{6}')
_runs = itertools.count(1)


def prepare(cfg: Config) -> Config:
    """Add to a config what every run of ours needs, unless it is there; returns a copy.

    The four hooks of `mmprompt.common.hooks`, `PromptCheckpointHook` in place of mmengine's
    CheckpointHook, and `GuardedDataset` around each dataset. All of it works with models and
    datasets that know nothing of mmprompt. Processes of `torchrun` become mmengine's launcher.
    """
    cfg = copy.deepcopy(cfg)
    cfg.launcher = 'pytorch' if num_processes() > 1 else 'none'
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and _plain_name(checkpoint) == 'CheckpointHook':
        checkpoint.type = 'mmprompt.PromptCheckpointHook'
    hooks = list(cfg.get('custom_hooks') or [])
    present = {_plain_name(hook) for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=f'mmprompt.{h}') for h in EVERY_RUN if h not in present]
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader and not loader.get('num_workers'):
            loader.pop('persistent_workers', None)  # torch refuses it without workers
        if loader and isinstance(loader.get('dataset'), dict):
            if _plain_name(loader.dataset) not in GUARDED:
                loader.dataset = dict(type='mmprompt.GuardedDataset', dataset=loader.dataset)
    return cfg


def divide_batch(cfg: Config) -> Config:
    """Give each process its share of the batch that a config trains with; returns a copy.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    cfg, number = copy.deepcopy(cfg), num_processes()
    loader = cfg.get('train_dataloader') or {}
    size = loader.get('batch_size')
    if number == 1 or size is None:
        return cfg
    if size % number:
        raise UserError(
            f'{cfg.filename}: train_dataloader.batch_size: expected a multiple of the {number} '
            f'processes, among which it is divided, found {size}. Start another number of '
            f'processes, or give --cfg-options train_dataloader.batch_size={size - size % -number}.'
        )
    loader.batch_size = size // number
    return cfg


@contextmanager
def running(cfg: Config) -> Iterator['BriefRunner']:
    """Build the Runner of a prepared config; clean up after what a user's input makes fail.

    If the block fails for a reason that `translate` knows and no checkpoint or prompt was written,
    the work directory is left as it was found. Processes of `torchrun` meet here first.

    Raises:
        UserError: translated from whatever the block raised.
    """
    install_strict_loader()
    init_default_scope(cfg.get('default_scope') or 'mmprompt')
    group = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    join(group.get('backend'), group.get('timeout'))
    traces = _Traces(Path(cfg.work_dir), cfg.filename)
    barrier()  # none writes before all have looked
    try:
        yield BriefRunner.from_cfg(cfg)
        barrier()  # what the first process writes is there before another reads it
    except Exception as error:
        known = translate(error, cfg)
        if known is None:
            raise
        traces.remove()
        raise known from error


class BriefRunner(Runner):
    """A Runner that keeps the environment, the config and the list of hooks off the screen.

    The log file has them. From the first epoch on everything is shown.
    """

    def __init__(self, *args: Any, experiment_name: str | None = None, **kwargs: Any) -> None:
        self._brief = _Brief()
        if experiment_name is None:
            # mmengine names logger and message hub by the second; two runs of one process would
            # share them.
            cfg = kwargs.get('cfg')
            stem = Path(getattr(cfg, 'filename', None) or 'run').stem
            number = next(_runs)
            experiment_name = stem if number == 1 else f'{stem}-{number}'
        super().__init__(*args, experiment_name=experiment_name, **kwargs)
        self._brief.open = True

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As in mmengine, which can wrap neither without a GPU nor what learns nothing."""
        if not self.distributed or model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        if not any(p.requires_grad for p in model.parameters()):
            return model.to(get_device())
        some_unused = getattr(model, 'leaves_parameters_unused', False)
        wrapper = dict(
            type='mmengine.MMDistributedDataParallel',
            device_ids=[torch.cuda.current_device()] if torch.cuda.is_available() else None,
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', some_unused),
        )
        return super().wrap_model(wrapper, model)

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """As in mmengine; what processes tell each other does not lie in the current folder."""
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if metric.collect_device == 'cpu' and metric.collect_dir is None:
                metric.collect_dir = str(Path(self.log_dir) / 'collected')
        return built

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(self._brief)
        return logger


class _Brief(logging.Filter):
    """Drops messages of many lines until opened, and lines of mmengine that ask for no action."""

    open = False
    chatter = ('"FileClient" will be', '"HardDiskBackend" is', 'The prefix is not set in metric')

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage().strip()
        if text.startswith(self.chatter) or 'all SyncBatchNorm' in text:
            return False
        return self.open or '\n' not in text or record.levelno >= logging.WARNING


class _Traces:
    """What a run leaves in its work directory apart from results: log folder and config copy."""

    def __init__(self, work_dir: Path, config: str | None) -> None:
        self.work_dir = work_dir
        self.made = [p for p in (work_dir, *work_dir.parents) if not p.exists()]
        self.config = work_dir / Path(config or 'config.py').name
        self.before = {p: self._content(p) for p in self._files()}

    def remove(self) -> None:
        new = [p for p in self._files() if p not in self.before]
        if any(p.suffix in ('.pth', '.safetensors') for p in new):
            return  # results stand; so does their log
        for path in new:
            top = path.relative_to(self.work_dir).parts[0]
            if path == self.config or _RUN_FOLDER.fullmatch(top):
                path.unlink(missing_ok=True)  # another process may be at the same
        for path, content in self.before.items():
            if content is not None:
                path.write_bytes(content)
        for folder in sorted(self.work_dir.glob('*/'), reverse=True):
            if _RUN_FOLDER.fullmatch(folder.name) and not any(p.is_file() for p in _tree(folder)):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _files(self) -> list[Path]:
        return [p for p in _tree(self.work_dir) if p.is_file()]

    def _content(self, path: Path) -> bytes | None:
        return path.read_bytes() if path == self.config else None


def _tree(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def _plain_name(component: Any) -> str:
    kind = component.get('type') if isinstance(component, dict) else type(component)
    return str(getattr(kind, '__name__', kind)).split('.')[-1]
