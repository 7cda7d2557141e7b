"""``tools/class_prior.py``: count how often each class occurs in a config's training labels."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.apis.prepare.few_shot import progress
from mmprompt.common.class_prior import save_class_prior
from mmprompt.common.errors import UserError
from mmprompt.datasets.checks import build_dataset
from mmprompt.datasets.few_shot import load_label

FILE = 'class_prior.json'


def labelled_images(dataset: Any) -> Iterator[tuple[Any, int]]:
    """Yield (data set, index) of each image behind wrappers, once however often it is repeated.

    A `FewShotDataset` leaves its images of the inner data set; repeating ones and those that only
    transform are passed through; of a concatenation all parts follow one another.
    """
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from labelled_images(part)
        return
    inner = vars(dataset).get('dataset')
    if inner is None:
        yield from ((dataset, i) for i in range(len(dataset)))
        return
    images = list(labelled_images(inner))
    if hasattr(dataset, 'inner_index'):  # of what repeats, each image is listed once
        chosen = (dataset.inner_index(i) % len(images) for i in range(len(dataset)))
        images = [images[i] for i in dict.fromkeys(chosen)]
    yield from images


def count_pixels(dataset: Any, watch: Any = iter) -> tuple[list[int], int, int]:
    """Count the pixels of each class in the labels, as loaded and before any augmentation.

    Args:
        dataset: an MMSegmentation dataset, wrapped or not; its own LoadAnnotations step, with
            `reduce_zero_label` and label map, reads each label once.
        watch: wraps the iteration over the images, to show progress.

    Returns:
        C numbers of pixels; the number of images; the number of ignored pixels.

    Raises:
        UserError: naming a label that is missing, damaged, or holds a value outside the classes.
    """
    images = list(labelled_images(dataset))
    pixels, ignored = np.zeros(len(dataset.metainfo['classes']), np.int64), 0
    indices: Iterable[int] = watch(range(len(images)))
    for i in indices:
        leaf, index = images[i]
        label = load_label(leaf, index)
        counted = label[label != getattr(leaf, 'ignore_index', 255)]
        pixels += np.bincount(counted, minlength=len(pixels))
        ignored += label.size - counted.size
    return pixels.tolist(), len(images), ignored


def default_path(cfg: Config) -> str:
    """Where a config expects its class prior, else a file in the folder of its training data.

    Raises:
        UserError: if it names neither.
    """
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    for named in (backbone.get('class_prior'), cfg.get('class_prior')):
        if isinstance(named, str):
            return named
    node = _training_node(cfg)
    while isinstance(node, dict):
        if node.get('data_root'):
            return str(Path(node['data_root']) / FILE)
        node = node.get('dataset') or (node.get('datasets') or [None])[0]
    raise UserError(
        f'{cfg.filename}: expected --out, as the config names neither model.backbone.class_prior '
        f'nor a data_root. Say where to write it: --out data/NAME/{FILE}'
    )


def _training_node(cfg: Config) -> dict:
    node = (cfg.get('train_dataloader') or {}).get('dataset')
    if not isinstance(node, dict):
        raise UserError(
            f'{cfg.filename}: expected train_dataloader.dataset, whose labels are to be counted, '
            f'found {node!r}. Give a config that trains.'
        )
    return node


def _check_number(cfg: Config, classes: Iterable[str]) -> None:
    """Before many labels are read for a model that cannot use the result."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    expected, names = backbone.get('num_classes'), list(classes)
    if expected is not None and expected != len(names):
        raise UserError(
            f'{cfg.filename}: model.backbone.num_classes: expected {len(names)}, the number of '
            f'classes of the training data ({", ".join(names[:5])} ...), found {expected}. Correct '
            f'it.'
        )


def report(classes: Iterable[str], pixels: Iterable[int], frequencies: Iterable[float]) -> str:
    """A table of pixels and shares by class, and a line about those that never occur."""
    rows = list(zip(classes, pixels, frequencies))
    width = max(5, *(len(name) for name, _, _ in rows))
    lines = [f'{"class":<{width}}  {"pixels":>14}  per cent']
    lines += [f'{name:<{width}}  {n:>14,}  {100 * share:8.4f}' for name, n, share in rows]
    absent = [name for name, n, _ in rows if n == 0]
    if absent:
        lines.append(f'warning: no training pixel has the class {", ".join(absent)}')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='class_prior.py',
        description='Count how often each class occurs in the training labels of a config, for '
        'M_0, the first semantic map of SPM. Labels are read as the training does it, but without '
        'augmentation; ignored pixels are left out.',
    )
    parser.add_argument('config', help='config file, or its name below configs/')
    parser.add_argument(
        '--out',
        metavar='JSON',
        help=f'the file to write (default: model.backbone.class_prior of the config if it is a '
        f'path, else {FILE} in data_root)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    args = parser.parse_args(argv)

    def body() -> None:
        cfg = find_config(args.config)
        apply_options(cfg, args.cfg_options)
        out = args.out or default_path(cfg)
        init_default_scope(cfg.get('default_scope') or 'mmprompt')
        dataset = build_dataset(_training_node(cfg))
        classes = dataset.metainfo['classes']
        _check_number(cfg, classes)
        pixels, images, ignored = count_pixels(dataset, progress)
        try:
            frequencies = save_class_prior(out, classes, pixels, images, ignored)
        except OSError as error:
            raise UserError(
                f'{out}: expected a place that can be written to, found {error.strerror}. Say '
                f'where to write it with --out.'
            ) from error
        print(report(classes, pixels, frequencies))
        print(f'{out}: {images} images, {sum(pixels):,} pixels, {ignored:,} ignored')

    return run_command_line(body)
