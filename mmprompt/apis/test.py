"""``tools/test.py``: measure a model as it is, with a prompt file, or with a checkpoint."""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import common_arguments, read_config, run_command_line
from mmprompt.apis.patches.others import other_patches, use_patches
from mmprompt.apis.running import prepare, running
from mmprompt.apis.task_table import has_tasks, task_table
from mmprompt.common.checkpoint import load_strict
from mmprompt.common.checkpoint_hook import bare_model
from mmprompt.common.errors import UserError
from mmprompt.common.files import write_json
from mmprompt.common.processes import is_first
from mmprompt.common.prompt_file import PROMPT_FILE, PromptFile


def test(
    cfg: Config,
    weights: str | Path | None = None,
    show_dir: str | Path | None = None,
    out: str | Path | None = None,
    patches: str | Path | None = None,
) -> dict[str, float]:
    """Measure a config on its test data.

    Args:
        cfg: the config, its ``work_dir`` set.
        weights: a prompt file (.safetensors), a training checkpoint (.pth), or None for the model
            without anything learned: zero-shot.
        show_dir: folder for pictures of the predictions.
        out: JSON file for the metrics, written atomically.
        patches: store of patches in place of that which the config tests with.

    Returns:
        The metrics by name.

    Raises:
        UserError: if anything that the user gave cannot be used.
    """
    cfg = prepare(cfg)
    prompt, recipe = None, {}
    cfg.load_from, cfg.resume = None, False
    if patches is not None:
        use_patches(cfg, patches)
    if weights is not None and Path(weights).suffix == '.safetensors':
        prompt = PromptFile.load(weights, kinds=('prompt', 'head'))
        recipe = prompt.recipe
    elif weights is not None:
        checkpoint = load_strict(weights)  # refused here, before anything is built
        recipe = (checkpoint.get('mmprompt') or {}).get('recipe') or {}
        del checkpoint  # the runner reads it again
        cfg.load_from = str(weights)
    if show_dir is not None:
        _show(cfg, Path(show_dir))
    start = time.perf_counter()
    difference = other_patches(cfg, recipe)
    with running(cfg) as runner:
        if difference is not None:
            print_log(difference, 'current')
        if prompt is not None:
            _put_on(runner, prompt)
        metrics = {k: _number(v) for k, v in runner.test().items()}
    if out is not None and is_first():
        record = {
            'config': cfg.filename,
            'weights': None if weights is None else str(weights),
            'metrics': metrics,
            'seconds': round(time.perf_counter() - start, 3),
        }
        write_json(out, record)
    return metrics


class _PutPromptOn(Hook):
    """Puts a prompt on the base once `FrozenBaseHook` has loaded it."""

    def __init__(self, prompt: PromptFile) -> None:
        self.prompt = prompt

    def before_run(self, runner: Any) -> None:
        bare_model(runner).load_prompt(self.prompt)


def _put_on(runner: Any, prompt: PromptFile) -> None:
    model = bare_model(runner)
    if not hasattr(model, 'load_prompt'):
        raise UserError(
            f'{prompt.path}: expected a config whose model takes prompts, found '
            f'{type(model).__name__}. Use the config that trained the prompt.'
        )
    # Of equal priority and later registered: right after FrozenBaseHook.
    runner.register_hook(_PutPromptOn(prompt), 'VERY_HIGH')


def _show(cfg: Config, folder: Path) -> None:
    """Let mmseg's visualisation hook draw every prediction into ``folder``."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('visualization', ConfigDict(type='mmseg.SegVisualizationHook'))
    hook.update(draw=True, interval=1)
    visualizer = cfg.get('visualizer') or ConfigDict(
        type='mmseg.SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
    )
    visualizer.save_dir = str(folder)
    cfg.visualizer = visualizer


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='test.py', description='Measure a model, with or without a learned prompt.'
    )
    common_arguments(parser)
    parser.add_argument(
        'weights',
        nargs='?',
        help=f'{PROMPT_FILE} or a training checkpoint; without it the model is zero-shot',
    )
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--out', metavar='JSON', help='file for the metrics')
    parser.add_argument(
        '--patches', metavar='STORE', help='of SAM-CP: other patches than those of the config'
    )
    args = parser.parse_args(argv)

    def body() -> None:
        metrics = test(read_config(args), args.weights, args.show_dir, args.out, args.patches)
        if is_first():
            for name, value in metrics.items():
                print(f'{name}: {value}')
            if has_tasks(metrics):
                print(task_table({Path(args.config).stem: metrics}))

    return run_command_line(body)
