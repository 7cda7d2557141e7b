"""``tools/make_few_shot_split.py``: choose k images per class of a config's training data."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.common.errors import UserError
from mmprompt.common.few_shot import SAMPLINGS, Manifest
from mmprompt.datasets.checks import build_dataset
from mmprompt.datasets.few_shot import make_manifest
from mmprompt.datasets.guarded import GuardedDataset

WRAPPERS = ('FewShotDataset', 'GuardedDataset')


def training_dataset(cfg: Config) -> Any:
    """Build the whole dataset behind a config's ``train_dataloader``, few-shot wrapper removed.

    Raises:
        UserError: if the config has none, or its data cannot be used.
    """
    node = (cfg.get('train_dataloader') or {}).get('dataset')
    while isinstance(node, dict) and str(node.get('type')).split('.')[-1] in WRAPPERS:
        node = node.get('dataset')
    if not isinstance(node, dict):
        raise UserError(
            f'{cfg.filename}: expected train_dataloader.dataset to draw from, found {node!r}. Give '
            f'a config that trains.'
        )
    init_default_scope(cfg.get('default_scope') or 'mmprompt')
    dataset = build_dataset(node)
    while isinstance(dataset, GuardedDataset):
        dataset = dataset.dataset
    return dataset


def manifest_path(cfg: Config) -> str | None:
    """Return the manifest that a config names, or None."""
    node = (cfg.get('train_dataloader') or {}).get('dataset')
    while isinstance(node, dict):
        if node.get('manifest'):
            return str(node['manifest'])
        node = node.get('dataset')
    return None


def report(manifest: Manifest) -> str:
    """Return a table of images per class, and a line about those that have too few."""
    width = max(map(len, manifest.counts))
    lines = [f'{"class":<{width}}  chosen  available']
    for name, count in manifest.counts.items():
        mark = f'  fewer than k={manifest.k}' if count < manifest.k else ''
        lines.append(f'{name:<{width}}  {count:6d}  {manifest.available[name]:9d}{mark}')
    short = manifest.shortfall()
    if short:
        names = ', '.join(f'{name} ({count})' for name, count in short.items())
        lines.append(f'warning: fewer than {manifest.k} images have {names}')
    return '\n'.join(lines)


def progress(indices: range) -> Iterator[int]:
    """Go through indices of images whose labels are read; say every 2 s how far."""
    shown = time.monotonic()
    for i in indices:
        if time.monotonic() - shown > 2:
            shown = time.monotonic()
            print(f'  read {i} of {len(indices)} labels', file=sys.stderr, flush=True)
        yield i


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='make_few_shot_split.py',
        description='Choose k images per class of the training data of a config. The same '
        'data, k, seed and sampling give the same set everywhere.',
    )
    parser.add_argument('config', help='config file, or its name below configs/')
    parser.add_argument('--k', type=int, default=16, help='images per class (default 16)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draws (default 0)')
    parser.add_argument('--out', help='the manifest to write (default: the one the config names)')
    parser.add_argument(
        '--sampling',
        choices=SAMPLINGS,
        default=SAMPLINGS[0],
        help='rarest-first counts what was drawn for rarer classes; independent does not',
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='accept classes that no image contains'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    args = parser.parse_args(argv)

    def body() -> None:
        cfg = find_config(args.config)
        apply_options(cfg, args.cfg_options)
        out = args.out or manifest_path(cfg)
        if out is None:
            raise UserError(
                f'{cfg.filename}: expected --out, as the config names no manifest. Say where to '
                f'write it: --out data/few_shot/NAME.json'
            )
        manifest = make_manifest(
            training_dataset(cfg), args.k, args.seed, args.sampling, args.allow_missing, progress
        )
        manifest.save(out)
        print(report(manifest))
        number, total = len(manifest.images), manifest.dataset['num_images']
        print(f'{Path(out)}: {number} of {total} images, k={args.k}, seed={args.seed}')

    return run_command_line(body)
