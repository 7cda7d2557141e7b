"""The hook that turns a pre-training run into a base file."""

import json
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmprompt.common.checkpoint import resolve_weights
from mmprompt.common.checkpoint_hook import bare_model
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.checkpoint import read_base, save_base
from mmprompt.registry import HOOKS


@HOOKS.register_module()
class ExportBaseHook(Hook):
    """Writes the trained SEEM as a base file, safetensors with config and record inside.

    Args:
        out: file name, inside the work dir unless absolute.
        interval: also write every so many iterations ("last good"); 0 = only at the end.
        record: facts to keep with the weights, such as the config's name.
        data_record: JSON file that says how the training data came to be (`streets.json`); its
            content goes into the record as `data`.
    """

    priority = 'LOW'

    def __init__(
        self,
        out: str = 'base.safetensors',
        interval: int = 0,
        record: dict | None = None,
        data_record: str | None = None,
    ) -> None:
        self.out = out
        self.interval = interval
        self.record = dict(record or {})
        self.data_record = data_record

    def before_train(self, runner) -> None:
        """Read the records of the base and of the data, before hours of training depend on them.

        Raises:
            UserError: the data's file is missing or no JSON.
        """
        base = getattr(bare_model(runner), 'base', None)
        if base is not None:
            _, metadata = read_base(resolve_weights(base))
            self.record['base'] = {k: metadata[k] for k in ('fingerprint', 'record')}
        if self.data_record is None:
            return
        try:
            self.record['data'] = json.loads(Path(self.data_record).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f'ExportBaseHook.data_record: expected the JSON file {self.data_record}, found '
                f'{error}. Make the data with tools/make_streets.py, or leave data_record out.'
            ) from error

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write every `interval` iterations."""
        if self.interval and (runner.iter + 1) % self.interval == 0:
            self.export(runner, runner.iter + 1)

    def after_train(self, runner) -> None:
        """Write the final weights."""
        self.export(runner, runner.iter)

    @torch.no_grad()
    def export(self, runner, iteration: int) -> None:
        """Write atomically; weights that are not finite never replace good ones."""
        model = bare_model(runner)
        if not is_main_process():
            return
        bad = [n for n, v in model.seem.state_dict().items() if not torch.isfinite(v).all()]
        path = Path(self.out)
        path = path if path.is_absolute() else Path(runner.work_dir) / path
        if bad:
            runner.logger.error(f'{bad[0]} is not finite: {path} keeps its former weights.')
            return
        record = {
            **self.record,
            'iterations': iteration,
            'seed': runner.seed,
            'classes': model.class_names,
            'torch': torch.__version__,
        }
        save_base(path, model.seem, model.seem_config, record)
        runner.logger.info(f'Base exported to {path} at iteration {iteration}.')
