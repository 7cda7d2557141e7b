"""What SSPrompt's tables are made of: cells, each one training and measurement.

A cell belongs to no table: what two tables share is one cell, and runs once.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmprompt.apis.cli import find_config
from mmprompt.apis.reproduce.ssprompt_suites import (
    INSTANCE,
    PANOPTIC,
    SEMANTIC,
    VALIDATION,
    Column,
    Suite,
    Table,
)

#: Methods without anything to learn.
UNTRAINED = ('zero-shot', 'zero-shot-bare', 'zero-shot-grid', 'seem')
#: Learning rates of the 200 steps of AdamW where they are not the config's; docs/results.md says
#: how they were chosen.
LEARNING_RATES = {
    **dict.fromkeys(('coop', 'coop-m4', 'coop-csc', 'locn'), 3e-3),
    'head': 1e-3,
    'full': 1e-4,
}
#: Bases that take these rates: those with the schedule of few steps on which they were chosen.
_TUNED = ('nano', 'r50')
_LEAF = 'configs/ssprompt/{base}_{data}{task}_16shot.py'


@dataclass(frozen=True)
class Variant:
    """A row of a table that is more than a method's name put into the usual config.

    Attributes:
        method: a name of `mmprompt.methods.ssprompt.methods.METHODS`; None leaves the config's.
        leaf: the config, with the places {base}, {data} and {task}.
        options: values by path into it; texts may have the place {condition}, the last part of
            the name of the data.
    """

    method: str | None
    leaf: str = _LEAF
    options: Mapping[str, Any] = field(default_factory=dict)

    def options_for(self, data: str) -> dict[str, Any]:
        """The options of a cell on `data`."""
        condition = data.removesuffix(VALIDATION).rpartition('-')[2]
        return {
            path: value.format(condition=condition) if isinstance(value, str) else value
            for path, value in self.options.items()
        }


def _reading(source: str, **more: Any) -> Variant:
    options = {'model.decode_head.spatial_prompt.source': source, **more}
    # What the leaf counted holds for its own reading; the head's closed form checks all of them.
    return Variant('ssprompt', options={'model.expected_parameters': None, **options})


VARIANTS = {
    'ssprompt-query-pos': _reading('query_pos'),
    'ssprompt-both': _reading('both'),
    'ssprompt-grid': _reading('grid', **{'model.decode_head.decoder.object_tokens': True}),
    'ssprompt-published': Variant('ssprompt', _LEAF.replace('.py', '_published.py')),
    'coop-native': Variant('coop', _LEAF.replace('.py', '_coop_native.py')),
    'seem': Variant(
        None,
        'configs/seem/seem-nano_streets-clear.py',
        {
            'model.base': 'mmprompt://seem-nano_streets',
            'test_dataloader.dataset.data_root': 'data/streets/{condition}',
        },
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training and its measurement.

    Attributes:
        base: the frozen model: 'nano', 'r50', 'mobile-sam', 'focal-t', 'focal-l' or 'davit-l'.
        data: the data set, as configs name it; '-val' at the end: measured on its validation split.
        method: a name of `mmprompt.methods.ssprompt.methods.METHODS`, or of `VARIANTS`.
        task: what is trained. Configs of 'instance' and 'panoptic' measure all three tasks.
        shots: images per class; 0 if nothing is trained.
        seed: of the draw of images and of training; 0 if nothing is trained.
        recipe: optimiser, learning rate, steps and batch size; '-' if nothing is trained.
    """

    base: str
    data: str
    method: str
    task: str
    shots: int
    seed: int
    recipe: str

    def __str__(self) -> str:
        trained = f', {self.shots}-shot, seed {self.seed} ({self.recipe})' if self.shots else ''
        task = '' if self.task == SEMANTIC else f', {self.task}'
        return f'{self.base} on {self.data}: {self.method}{task}{trained}'


def make_cell(base: str, column: Column, method: str, seed: int) -> Cell:
    """The cell behind a place of a table."""
    task = column.task
    if method in UNTRAINED:
        # The configs of both measure the same frozen model in all three tasks.
        task = PANOPTIC if task == INSTANCE else task
        return Cell(base, column.data, method, task, 0, 0, '-')
    recipe = recipe_of(base, column.data, task, method, column.rate)
    return Cell(base, column.data, method, task, column.shots, seed, recipe)


def cells_of(
    table: Table, base: str, suite: Suite, seeds: tuple[int, ...] | None = None
) -> Iterator[Cell]:
    """All cells of a table, one seed after the other, so that a stopped run has whole columns."""
    found = {}
    for seed in range(table.seeds) if seeds is None else seeds:
        for column in table.columns(suite):
            for method in table.methods:
                found[make_cell(base, column, method, seed)] = None
    yield from found


def variant_of(method: str) -> Variant:
    """What a row changes: a variant of that name, or the method of that name alone."""
    return VARIANTS.get(method) or Variant(method)


def leaf_of(base: str, data: str, task: str, method: str) -> str:
    """The config of which a cell is a variation."""
    places = dict(base=base, data=data.removesuffix(VALIDATION))
    return variant_of(method).leaf.format(**places, task='' if task == SEMANTIC else f'-{task}')


@functools.cache
def _read(leaf: str) -> Config:
    return find_config(leaf)


def _with_method(base: str, data: str, task: str, method: str) -> Config:
    """A copy of the leaf, with the method, its learning rate and its options."""
    cfg, variant = copy.deepcopy(_read(leaf_of(base, data, task, method))), variant_of(method)
    if data.endswith(VALIDATION):
        cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    if variant.method is not None:
        cfg.model.method = variant.method
        optimizer = cfg.optim_wrapper.optimizer
        if base in _TUNED and optimizer.type == 'AdamW':
            optimizer.lr = LEARNING_RATES.get(variant.method, optimizer.lr)
    cfg.merge_from_dict(variant.options_for(data))
    return cfg


@functools.cache
def recipe_of(base: str, data: str, task: str, method: str, rate: float | None = None) -> str:
    """How a method is trained, in words.

    Args:
        base, data, task, method: as in a cell.
        rate: learning rate instead of the method's own.
    """
    cfg = _with_method(base, data, task, method)
    optimizer, steps = cfg.optim_wrapper.optimizer, cfg.train_cfg.max_iters
    batch, rate = cfg.train_dataloader.batch_size, optimizer.lr if rate is None else rate
    return f'{optimizer.type} {rate:g}, {steps} steps of {batch}'


def cell_config(cell: Cell, work_dir: str) -> Config:
    """The config of one cell: its leaf with the cell's method, images, learning rate and seed."""
    cfg = _with_method(cell.base, cell.data, cell.task, cell.method)
    cfg.work_dir = work_dir
    cfg.randomness = dict(seed=cell.seed)
    if cell.shots:
        cfg.optim_wrapper.optimizer.lr = float(re.match(r'\w+ ([\d.e+-]+), ', cell.recipe)[1])
        _choose_images(cfg.train_dataloader.dataset, cell)
    # Measured once, after training; the split for choosing is not needed besides.
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    if cfg.get('train_cfg'):
        cfg.train_cfg.pop('val_interval', None)
    return cfg


def _choose_images(few_shot: Mapping, cell: Cell) -> None:
    """A data set with a manifest gets that of the cell; any other draws anew, which is the same."""
    if few_shot.get('manifest'):
        path = Path(few_shot.manifest)
        kind = re.sub(r'\d+shot_seed\d+', f'{cell.shots}shot_seed{cell.seed}', path.name)
        few_shot.manifest = str(path.with_name(kind))
    else:
        few_shot.update(k=cell.shots, seed=cell.seed)
