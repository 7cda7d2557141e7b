"""Which tables of SSPrompt there are, and on which data each base fills them.

A table has methods as rows and places of measurement as columns. Tables with a number are those of
the papers; the others stand beside them in docs/results.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mmprompt.common.errors import UserError

SEMANTIC, INSTANCE, PANOPTIC = 'semantic', 'instance', 'panoptic'
TASKS = (SEMANTIC, INSTANCE, PANOPTIC)
#: At the end of the name of data: measured on the split for choosing, not on that for testing.
VALIDATION = '-val'
_PAPERS = ('2', '3', '4', '5', '6', '8', '10', 'methods')


@dataclass(frozen=True)
class Suite:
    """The data sets on which a base is measured.

    Attributes:
        common: those of Table 2.
        adverse: those of Table 3.
        main: the one of the other tables, which is Cityscapes in the papers.
        tasks: those for which `main` has configs.
        tables: what 'all' means, and what docs/results.md shows.
    """

    common: tuple[str, ...]
    adverse: tuple[str, ...]
    main: str
    tasks: tuple[str, ...] = TASKS
    tables: tuple[str, ...] = _PAPERS


_PUBLIC = ('cityscapes', 'bdd100k', 'mapillary', 'ade20k', 'pascal-context')
_ACDC = tuple(f'acdc-{condition}' for condition in ('fog', 'night', 'rain', 'snow'))
_STREETS = tuple(f'streets-{condition}' for condition in ('fog', 'night', 'rain', 'snow'))
_DUSK = ('camvid-dusk',)
SUITES = {
    ('nano', 'streets'): Suite(
        ('streets-clear',),
        _STREETS,
        'streets-fog',
        tables=('conditions', 'readings', 'recipes', *_PAPERS),
    ),
    ('nano', 'camvid'): Suite(('camvid-day',), _DUSK, 'camvid-dusk', (SEMANTIC,)),
    ('r50', 'camvid'): Suite((), _DUSK, 'camvid-dusk', (SEMANTIC,), ('shots',)),
    ('mobile-sam', 'camvid'): Suite((), _DUSK, 'camvid-dusk', (SEMANTIC,), ('sam',)),
    ('focal-t', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes'),
    ('focal-l', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes', (SEMANTIC,)),
    ('davit-l', 'public'): Suite(_PUBLIC, _ACDC, 'cityscapes', (SEMANTIC,)),
}


@dataclass(frozen=True)
class Column:
    """A column of a table: where its numbers are measured, and which metric they are.

    Attributes:
        label: its head, or that of its row where data are the rows.
        data: the data set, as configs name it; with `VALIDATION` at the end, that split.
        task: what is trained.
        shots: images per class.
        metric: one of `mmprompt.apis.reproduce.ssprompt_rows.METRICS`.
        rate: learning rate instead of the method's own.
    """

    label: str
    data: str
    task: str = SEMANTIC
    shots: int = 16
    metric: str = 'mIoU'
    rate: float | None = None


Columns = tuple[Column, ...]


def _main(suite: Suite) -> Columns:
    return (Column(suite.main, suite.main),)


def _each(*names: str) -> Callable[[Suite], Columns]:
    """Every data set of some of a suite's lists."""
    return lambda suite: tuple(Column(d, d) for name in names for d in getattr(suite, name))


def _tasks(suite: Suite) -> Columns:
    metrics = dict(zip(TASKS, ('mIoU', 'AP50', 'PQ')))
    return tuple(Column(task, suite.main, task, metric=metrics[task]) for task in suite.tasks)


def _shots(*shots: int) -> Callable[[Suite], Columns]:
    return lambda suite: tuple(Column(f'{k}-shot', suite.main, shots=k) for k in shots)


def _metrics(*metrics: str) -> Callable[[Suite], Columns]:
    return lambda suite: tuple(Column(suite.main, suite.main, metric=m) for m in metrics)


def _rates(*rates: float) -> Callable[[Suite], Columns]:
    """The main data's validation split, once per learning rate."""
    data = VALIDATION
    return lambda suite: tuple(Column(f'{r:g}', suite.main + data, rate=r) for r in rates)


def _conditions(suite: Suite) -> Columns:
    """All metrics of one frozen model on the validation split of each data set."""
    metrics = ('mIoU', 'PQ', 'PQ_th', 'PQ_st', 'SQ', 'RQ', 'AP', 'AP50')
    return tuple(
        Column(name, f'{name}{VALIDATION}', PANOPTIC, metric=metric)
        for name in (*suite.common, *suite.adverse)
        for metric in metrics
    )


@dataclass(frozen=True)
class Table:
    """A grid of cells.

    Attributes:
        name: as on the command line; a number is that of the paper.
        title: what it shows.
        methods: rows: names of `mmprompt.methods.ssprompt.methods.METHODS`, or of
            `mmprompt.apis.reproduce.ssprompt_cells.VARIANTS`.
        seeds: how many, from 0 on.
        columns: those of a suite.
        home: base and data if none are given.
        data_down: data as rows and metrics as columns, of a single method.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    seeds: int = 1
    columns: Callable[[Suite], Columns] = field(default=_main, compare=False)
    home: tuple[str, str] = ('nano', 'streets')
    data_down: bool = False


_COMPARED = ('zero-shot', 'coop', 'locn', 'ssprompt')
_ABLATION = (
    'zero-shot',
    'spaprompt-embedding-only',
    'spaprompt',
    'semprompt-embedding-only',
    'semprompt',
    'ssprompt',
)
_VSPL = ('zero-shot', 'zero-shot-grid', 'vspl', 'spaprompt', 'ssprompt')
_READINGS = (
    'zero-shot',
    'zero-shot-grid',
    'ssprompt',
    'ssprompt-query-pos',
    'ssprompt-both',
    'ssprompt-grid',
)
_EVERY = (
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
)
_RECIPES = ('zero-shot', 'ssprompt', 'ssprompt-published', 'coop', 'coop-native')
TABLES = {
    table.name: table
    for table in (
        Table('2', 'methods on common data sets', _COMPARED, 3, _each('common')),
        Table('3', 'methods under adverse conditions', _COMPARED, 3, _each('adverse')),
        Table('4', 'three tasks', ('zero-shot', 'ssprompt'), columns=_tasks),
        Table('5', 'ablation', _ABLATION, 3),
        Table('6', 'images per class', ('zero-shot', 'ssprompt'), 1, _shots(16, 12, 8, 4)),
        Table('8', 'VSPL', _VSPL),
        Table('10', 'prompt engineering', ('zero-shot-bare', *_COMPARED)),
        Table('methods', 'every method', _EVERY),
        Table('conditions', 'the frozen model', ('seem',), columns=_conditions, data_down=True),
        Table('readings', 'readings of the spatial prompt', _READINGS),
        Table('recipes', 'published recipes', _RECIPES),
        Table(
            'rates',
            'learning rates, measured on validation images',
            ('zero-shot', 'coop', 'locn'),
            columns=_rates(1e-3, 3e-3, 1e-2),
        ),
        Table('shots', 'ablation', _ABLATION, 3, _shots(4, 8, 16), ('r50', 'camvid')),
        Table(
            'sam',
            'SSPrompt on SAM',
            _COMPARED,
            columns=_metrics('mIoU', 'aAcc'),
            home=('mobile-sam', 'camvid'),
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
            return Suite(common, adverse, data, tasks, suite.tables)
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
