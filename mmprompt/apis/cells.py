"""What the tables of the papers are made of here: cells, each one training and measurement.

A cell belongs to no table: what two tables share is one cell, and runs once.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmprompt.apis.cli import find_config
from mmprompt.common.errors import UserError

SEMANTIC, INSTANCE, PANOPTIC = 'semantic', 'instance', 'panoptic'
TASKS = (SEMANTIC, INSTANCE, PANOPTIC)
#: Methods without anything to learn.
UNTRAINED = ('zero-shot', 'zero-shot-bare', 'zero-shot-grid')
#: Learning rates of the 200 steps of AdamW where they are not the config's; docs/results.md says
#: how they were chosen.
LEARNING_RATES = {
    **dict.fromkeys(('coop', 'coop-m4', 'coop-csc', 'locn'), 3e-3),
    'head': 1e-3,
    'full': 1e-4,
}


@dataclass(frozen=True)
class Cell:
    """One training and its measurement.

    Attributes:
        base: the frozen model: 'nano', 'r50', 'focal-t', 'focal-l' or 'davit-l'.
        data: the data set, as configs name it.
        method: a name of `mmprompt.methods.ssprompt.methods.METHODS`.
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


@dataclass(frozen=True)
class Suite:
    """The data sets on which a base is measured.

    Attributes:
        common: those of Table 2.
        adverse: those of Table 3.
        main: the one of the other tables, which is Cityscapes in the papers.
        tasks: those for which `main` has configs.
    """

    common: tuple[str, ...]
    adverse: tuple[str, ...]
    main: str
    tasks: tuple[str, ...] = TASKS


_PUBLIC = ('cityscapes', 'bdd100k', 'mapillary', 'ade20k', 'pascal-context')
_ACDC = tuple(f'acdc-{condition}' for condition in ('fog', 'night', 'rain', 'snow'))
_STREETS = tuple(f'streets-{condition}' for condition in ('fog', 'night', 'rain', 'snow'))
SUITES = {
    ('nano', 'streets'): Suite(('streets-clear',), _STREETS, 'streets-fog'),
    ('nano', 'camvid'): Suite(('camvid-day',), ('camvid-dusk',), 'camvid-dusk', (SEMANTIC,)),
    ('r50', 'camvid'): Suite((), ('camvid-dusk',), 'camvid-dusk', (SEMANTIC,)),
    ('focal-t', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes'),
    ('focal-l', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes', (SEMANTIC,)),
    ('davit-l', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes', (SEMANTIC,)),
}


@dataclass(frozen=True)
class Column:
    """A column of a table: where its numbers are measured, and which metric they are."""

    label: str
    data: str
    task: str = SEMANTIC
    shots: int = 16
    metric: str = 'mIoU'


@dataclass(frozen=True)
class Table:
    """A grid of cells.

    Attributes:
        name: as on the command line; a number is that of the paper.
        title: what it shows.
        methods: rows.
        seeds: how many, from 0 on.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    seeds: int = 1

    def columns(self, suite: Suite) -> tuple[Column, ...]:
        """The columns of a suite."""
        if self.name == '4':
            metrics = dict(zip(TASKS, ('mIoU', 'AP50', 'PQ')))
            return tuple(Column(t, suite.main, t, metric=metrics[t]) for t in suite.tasks)
        if self.name == '6':
            return tuple(Column(f'{k}-shot', suite.main, shots=k) for k in (16, 12, 8, 4))
        data = {'2': suite.common, '3': suite.adverse}.get(self.name, (suite.main,))
        return tuple(Column(name, name) for name in data)


_COMPARED = ('zero-shot', 'coop', 'locn', 'ssprompt')
_ABLATION = (
    'zero-shot',
    'spaprompt-embedding-only',
    'spaprompt',
    'semprompt-embedding-only',
    'semprompt',
    'ssprompt',
)
TABLES = {
    table.name: table
    for table in (
        Table('2', 'methods on common data sets', _COMPARED, seeds=3),
        Table('3', 'methods under adverse conditions', _COMPARED, seeds=3),
        Table('4', 'three tasks', ('zero-shot', 'ssprompt')),
        Table('5', 'ablation', _ABLATION, seeds=3),
        Table('6', 'images per class', ('zero-shot', 'ssprompt')),
        Table('8', 'VSPL', ('zero-shot', 'zero-shot-grid', 'vspl', 'spaprompt', 'ssprompt')),
        Table('10', 'prompt engineering', ('zero-shot-bare', *_COMPARED)),
        Table(
            'methods',
            'every method (no table of a paper)',
            (
                'zero-shot-bare',
                'zero-shot',
                'coop',
                'coop-m4',
                'coop-csc',
                'locn',
                'vspl',
                'spaprompt',
                'semprompt',
                'ssprompt-embedding-only',
                'ssprompt',
                'head',
                'full',
            ),
        ),
    )
}


def find_suite(base: str, data: str) -> Suite:
    """The suite of a base, restricted to one data set if `data` is its name.

    Raises:
        UserError: the base has no such data.
    """
    if (base, data) in SUITES:
        return SUITES[base, data]
    known = []
    for (owner, name), suite in SUITES.items():
        if owner != base:
            continue
        members = dict.fromkeys((*suite.common, *suite.adverse, suite.main))
        known += [name, *members]
        if data in members:
            common, adverse = (
                tuple(d for d in part if d == data) for part in (suite.common, suite.adverse)
            )
            tasks = suite.tasks if data == suite.main else (SEMANTIC,)
            return Suite(common, adverse, data, tasks)
    raise UserError(
        f'--data {data}: expected data of the base {base} ({", ".join(known)}), found none of that '
        f'name. Correct --base or --data.'
    )


def suite_name(base: str, data: str) -> str:
    """The suite to which data belong: the name of its folder of results."""
    for owner, name in SUITES:
        suite = SUITES[owner, name]
        if owner == base and data in (name, *suite.common, *suite.adverse, suite.main):
            return name
    find_suite(base, data)
    raise AssertionError('find_suite raises for what is in no suite')


def make_cell(base: str, column: Column, method: str, seed: int) -> Cell:
    """The cell behind a place of a table."""
    task = column.task
    if method in UNTRAINED:
        # The configs of both measure the same frozen model in all three tasks.
        task = PANOPTIC if task == INSTANCE else task
        return Cell(base, column.data, method, task, 0, 0, '-')
    recipe = recipe_of(base, column.data, task, method)
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


def leaf_of(base: str, data: str, task: str) -> str:
    """The 16-shot config of which a cell is a variation."""
    return f'configs/ssprompt/{base}_{data}{"" if task == SEMANTIC else f"-{task}"}_16shot.py'


@functools.cache
def _read(leaf: str) -> Config:
    return find_config(leaf)


def _with_method(cfg: Config, method: str) -> None:
    cfg.model.method = method
    optimizer = cfg.optim_wrapper.optimizer
    if optimizer.type == 'AdamW' and method in LEARNING_RATES:
        optimizer.lr = LEARNING_RATES[method]


@functools.cache
def recipe_of(base: str, data: str, task: str, method: str) -> str:
    """How a method is trained, in words."""
    cfg = copy.deepcopy(_read(leaf_of(base, data, task)))
    _with_method(cfg, method)
    optimizer, steps = cfg.optim_wrapper.optimizer, cfg.train_cfg.max_iters
    batch = cfg.train_dataloader.batch_size
    return f'{optimizer.type} {optimizer.lr:g}, {steps} steps of {batch}'


def cell_config(cell: Cell, work_dir: str) -> Config:
    """The config of one cell: its leaf with the cell's method, images and seed."""
    cfg = copy.deepcopy(_read(leaf_of(cell.base, cell.data, cell.task)))
    _with_method(cfg, cell.method)
    cfg.work_dir = work_dir
    cfg.randomness = dict(seed=cell.seed)
    if cell.shots:
        _choose_images(cfg.train_dataloader.dataset, cell)
    # The test split is measured once, after training; the split for choosing is not needed.
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
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
