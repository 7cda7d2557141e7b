"""``tools/train.py``: train what a config describes."""

import argparse
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import common_arguments, read_config, run_command_line
from mmprompt.apis.running import divide_batch, prepare, running
from mmprompt.common.checkpoint import load_strict
from mmprompt.common.errors import UserError
from mmprompt.common.processes import is_first

_NUMBER = re.compile(r'(?:iter|epoch)_(\d+)\.pth')


def train(cfg: Config, resume: str | None = None) -> Runner:
    """Train a config; results go to ``cfg.work_dir``.

    Of several processes started by `torchrun` each takes its share of every batch.

    Args:
        cfg: the config, its ``work_dir`` set.
        resume: a checkpoint to continue from, or ``'auto'`` for the latest of the work directory
            (none there: training starts from the beginning).

    Returns:
        The Runner after training.

    Raises:
        UserError: if anything that the user gave cannot be used.
    """
    cfg = divide_batch(prepare(cfg))
    if resume:
        path = latest_checkpoint(Path(cfg.work_dir)) if resume == 'auto' else Path(resume)
        if path is None and is_first():
            print(f'{cfg.work_dir}: no checkpoint to continue from; starting from the beginning')
        elif path is not None:
            _check_resumable(path)
            cfg.load_from, cfg.resume = str(path), True
    with running(cfg) as runner:
        runner.train()
    return runner


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Return the newest training checkpoint of a work directory, or None.

    The file ``last_checkpoint`` is believed only if what it names is there: a folder may have been
    moved, or a run killed while writing it.
    """
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        named = work_dir / Path(note.read_text().strip() or 'nothing').name
        if named.is_file():
            return named
    numbered = {int(m[1]): p for p in work_dir.glob('*.pth') if (m := _NUMBER.fullmatch(p.name))}
    return numbered[max(numbered)] if numbered else None


def _check_resumable(path: Path) -> None:
    checkpoint = load_strict(path)
    missing = [k for k in ('state_dict', 'meta', 'message_hub', 'optimizer') if k not in checkpoint]
    if missing:
        raise UserError(
            f'{path}: expected a training checkpoint to continue from, found one without '
            f'{", ".join(missing)}. Give the iter_*.pth that training wrote, or start without '
            f'--resume.'
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog='train.py', description='Train a model or its prompts.')
    common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue exactly from a checkpoint (default: the latest of the work directory)',
    )
    args = parser.parse_args(argv)

    def body() -> None:
        train(read_config(args), args.resume)

    return run_command_line(body)
