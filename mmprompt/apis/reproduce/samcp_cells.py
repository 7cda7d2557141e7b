"""The cells of SAM-CP's tables: which trainings there are, how one runs, the rows that they leave.

A cell is one row of a table on one base and data: a training and its measurement; a measurement of
another row's training, where only the test differs; or, of Table 9, patches measured against the
objects, without a training. What tables share is one cell. The weights of a finished training are
kept, for the rows that measure them otherwise; a training that was stopped goes on where it was.
"""

import copy
import functools
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmprompt.apis.cli import apply_options, find_config
from mmprompt.apis.csv_rows import Row, put_row, read_csv
from mmprompt.apis.patches.stats import measure
from mmprompt.apis.patches.truth import PatchSplit, progress
from mmprompt.apis.reproduce.samcp_paper import PROPOSALS
from mmprompt.apis.reproduce.samcp_rows import STUDIES, Study, Variant
from mmprompt.apis.reproduce.samcp_suites import SAMCPTable
from mmprompt.apis.test import test
from mmprompt.apis.train import train
from mmprompt.common.locks import process_lock
from mmprompt.common.prompt_file import HEAD_FILE
from mmprompt.evaluation.proposal_quality import RULES, summary

WORK_DIR = Path('work_dirs/reproduce/samcp')
_CLIP_FILES = ('.safetensors', '.bin', '.pt')
#: Most steps that a stopped training does again.
EVERY = 50


@dataclass(frozen=True)
class SAMCPCell:
    """What is measured once.

    Attributes:
        base, data: a key of `STUDIES`.
        row: a name of `VARIANTS`, or of the study's own.
        recipe: optimiser, learning rate and batch size; '-' if nothing is trained.
        steps: of training; 0 if nothing is trained.
        seed: of training.
    """

    base: str
    data: str
    row: str
    recipe: str
    steps: int
    seed: int

    def __str__(self) -> str:
        trained = f' ({self.recipe}, {self.steps} steps, seed {self.seed})' if self.steps else ''
        return f'{self.base} on {self.data}: {self.row}{trained}'

    @property
    def place(self) -> tuple[str, str]:
        """The key of its study."""
        return self.base, self.data

    @property
    def variant(self) -> Variant:
        """What its row changes."""
        return STUDIES[self.place].variant(self.row)

    @property
    def training(self) -> 'SAMCPCell':
        """The cell whose weights it measures; itself if it has a training of its own."""
        return self if self.variant.of is None else replace(self, row=self.variant.of)

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        name = '_'.join(str(value) for value in asdict(self.training).values())
        return WORK_DIR / re.sub(r'[^\w.+-]+', '-', name)


KEYS = tuple(SAMCPCell.__dataclass_fields__)
_GROUPED = ('PQ', 'AP', 'mIoU')
#: In per cent; empty where a cell does not measure it. `object_IoU` is that of Table 9: of each
#: object with what patches make of it.
METRICS = (
    *('PQ', 'PQ_th', 'PQ_st', 'SQ', 'RQ', 'AP_det', 'AP', 'AP50', 'AP75', 'mIoU'),
    *(f'{metric}_{group}' for metric in _GROUPED for group in ('seen', 'unseen')),
    *PROPOSALS,
)
COUNTS = ('train_seconds', 'seconds')
COLUMNS = (*KEYS, *METRICS, *COUNTS)


def read_samcp_rows(path: Path) -> list[Row]:
    """Finished cells; none if there is no file.

    Raises:
        UserError: the file holds other columns.
    """
    return read_csv(path, COLUMNS, optional=METRICS)


def samcp_cell_of(row: Mapping[str, str]) -> SAMCPCell:
    """The cell that a row answers."""
    numbers = {key: int(row[key]) for key in ('steps', 'seed')}
    return SAMCPCell(**{key: row[key] for key in KEYS} | numbers)


@functools.cache
def _leaf(path: str) -> Config:
    return find_config(path)


def _leaf_of(study: Study, variant: Variant) -> str:
    return variant.leaf or study.leaf


def make_cell(
    place: tuple[str, str], row: str, steps: int | None = None, seed: int = 0
) -> SAMCPCell:
    """The cell behind a row.

    Args:
        place: a key of `STUDIES`.
        row: see `SAMCPCell`.
        steps: of training; None for those of the config.
        seed: of training.
    """
    study = STUDIES[place]
    variant = study.variant(row)
    if variant.rule is not None:
        return SAMCPCell(*place, row, '-', 0, 0)
    if variant.of is not None:
        return replace(make_cell(place, variant.of, steps, seed), row=row)
    cfg = _leaf(_leaf_of(study, variant))
    optimizer, batch = cfg.optim_wrapper.optimizer, cfg.train_dataloader.batch_size
    images = f'{batch} image' if batch == 1 else f'{batch} images'
    recipe = f'{optimizer.type} {optimizer.lr:g}, {images}'
    return SAMCPCell(*place, row, recipe, steps or cfg.train_cfg.max_iters, seed)


def samcp_cells(
    tables: Iterable[tuple[SAMCPTable, tuple[str, str]]], steps: int | None, seeds: Iterable[int]
) -> list[SAMCPCell]:
    """All cells of tables, each once, one seed after the other.

    Args:
        tables: each with a key of `STUDIES`.
        steps, seeds: see `make_cell`.
    """
    tables = list(tables)
    found = [
        make_cell(place, row, steps, seed)
        for seed in seeds
        for table, place in tables
        for row in table.places[place]
    ]
    return list(dict.fromkeys(found))


def training_config(cell: SAMCPCell) -> Config:
    """The config that trains a cell.

    With other steps than the config's its schedule is stretched or shortened as a whole.
    """
    training = cell.training
    study, variant = STUDIES[cell.place], training.variant
    cfg = copy.deepcopy(_leaf(_leaf_of(study, variant)))
    apply_options(cfg, dict(variant.options))
    _set_steps(cfg, cell.steps)
    cfg.randomness = dict(seed=cell.seed)
    cfg.work_dir = str(cell.folder)
    checkpoint = cfg.default_hooks.checkpoint
    checkpoint.interval = min(checkpoint.interval, EVERY)
    # Measured once, after training.
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.train_cfg.pop('val_interval', None)
    return cfg


def _set_steps(cfg: Config, steps: int) -> None:
    whole = cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters = steps
    if steps == whole:
        return
    for schedule in cfg.param_scheduler:
        for key in ('begin', 'end'):
            if key in schedule:
                schedule[key] = round(schedule[key] * steps / whole)
        if 'begin' in schedule and 'end' in schedule:
            schedule.end = max(schedule.end, schedule.begin + 1)
        if 'milestones' in schedule:
            schedule.milestones = [round(m * steps / whole) for m in schedule.milestones]


def test_config(cell: SAMCPCell) -> Config:
    """The config that measures a cell."""
    study, variant = STUDIES[cell.place], cell.variant
    own = cell.training.variant
    # A row with a leaf of its own is measured by it, unless it names another.
    leaf = variant.test_leaf or own.test_leaf or own.leaf or study.test_leaf or study.leaf
    cfg = copy.deepcopy(_leaf(leaf))
    apply_options(cfg, {**own.options, **variant.test_options})
    cfg.work_dir = str(cell.folder / 'test')
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    return cfg


def missing_files(cell: SAMCPCell) -> list[str]:
    """Files and folders that a cell reads and that are not there, in the order of their use."""
    configs = [test_config(cell)]
    loaders = [configs[0].test_dataloader]
    if cell.steps and not (cell.folder / HEAD_FILE).is_file():
        configs.insert(0, training_config(cell))
        loaders.insert(0, configs[0].train_dataloader)
    paths = [path for loader in loaders for path in _files_of(loader.dataset)]
    if cell.steps:
        paths += [path for cfg in configs for path in _files_of_model(cfg.model)]
    return [path for path in dict.fromkeys(paths) if not _is_there(path)]


def _files_of(dataset: Mapping[str, Any]) -> Iterator[str]:
    root = Path(dataset.get('data_root') or '')
    if dataset.get('data_root'):
        yield str(root)
    if dataset.get('ann_file'):
        yield str(root / dataset['ann_file'])
    for step in dataset.get('pipeline', ()):
        stores = step.get('store') or ()
        yield from [stores] if isinstance(stores, str) else map(str, stores)
        if step.get('ann_file'):
            yield step['ann_file']
    if isinstance(dataset.get('dataset'), Mapping):
        yield from _files_of(dataset['dataset'])


def _files_of_model(model: Mapping[str, Any]) -> Iterator[str]:
    text = model['head'].get('text')
    text = text.get('array') if isinstance(text, Mapping) else text
    backbone = model['backbone']
    weights = (backbone.get('init_cfg') or {}).get('checkpoint')
    clip = str(backbone.get('pretrained') or '')  # a file, or a name in open_clip
    for path in (text, weights, clip if Path(clip).suffix in _CLIP_FILES else None):
        if path and '://' not in path:
            yield path


def _is_there(path: str) -> bool:
    given = Path(path).expanduser()
    return given.exists() or ('*' in given.name and any(given.parent.glob(given.name)))


def run_samcp_cell(cell: SAMCPCell) -> list[Row]:
    """Train and measure one cell; returns its row, and those that the same measurement gives."""
    start = time.perf_counter()
    if cell.variant.rule is not None:
        return _measure_patches(cell, start)
    train_seconds = _train(cell)
    metrics = test(test_config(cell), cell.folder / HEAD_FILE)
    shutil.rmtree(cell.folder / 'test', ignore_errors=True)
    values = {str(name).rpartition('/')[2]: value for name, value in metrics.items()}
    return [_row(cell, values, train_seconds, start)]


def _train(cell: SAMCPCell) -> str:
    """Train what is not trained yet; seconds, empty where they are not those of a whole training.

    Leaves the weights alone: checkpoints are of no use any more.
    """
    if (cell.folder / HEAD_FILE).is_file():
        return ''
    begun, start = any(cell.folder.glob('*.pth')), time.perf_counter()
    train(training_config(cell), resume='auto')
    seconds = time.perf_counter() - start
    for path in cell.folder.iterdir():
        if path.name != HEAD_FILE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return '' if begun else f'{seconds:.0f}'


def _measure_patches(cell: SAMCPCell, start: float) -> list[Row]:
    split = PatchSplit(test_config(cell), 'test')
    quality = measure(split, watch=progress).quality
    rows = []
    for rule in RULES:
        found = summary(getattr(quality, rule))
        values = {metric: found[name] for metric, name in zip(PROPOSALS, found)}
        rows.append(_row(replace(cell, row=rule), values, '', start))
    return rows


def _row(cell: SAMCPCell, values: Mapping[str, float], train_seconds: str, start: float) -> Row:
    known = {m: f'{values[m]:.2f}' for m in METRICS if m in values and values[m] == values[m]}
    row = {key: str(value) for key, value in asdict(cell).items()} | dict.fromkeys(METRICS, '')
    seconds = f'{time.perf_counter() - start:.0f}'
    return row | known | dict(train_seconds=train_seconds, seconds=seconds)


def run_samcp_missing(
    cells: Iterable[SAMCPCell],
    path: Path,
    limit: int | None = None,
    minutes: float | None = None,
) -> int:
    """Run what is neither finished nor being run by another process; returns how many were run.

    Cells that lack files are told and left out. Of one training only one process runs cells.

    Args:
        cells: in this order.
        path: the CSV file of finished cells.
        limit: most cells to run.
        minutes: after which no further cell is begun.
    """
    ran, cells, start = 0, list(cells), time.monotonic()
    for cell in cells:
        late = minutes is not None and time.monotonic() - start > 60 * minutes
        if late or (limit is not None and ran >= limit):
            break
        with process_lock(claim(path, cell), wait=False) as free:
            done = {samcp_cell_of(row) for row in read_samcp_rows(path)}
            if not free or cell in done:
                continue
            missing = missing_files(cell)
            if missing:
                print(f'== {cell}: left out, needs {", ".join(missing)}', flush=True)
                continue
            print(f'== {cell} ({sum(c not in done for c in cells)} left)', flush=True)
            for row in run_samcp_cell(cell):
                put_row(path, COLUMNS, row, samcp_cell_of, optional=METRICS)
            ran += 1
    return ran


def claim(path: Path, cell: SAMCPCell) -> str:
    """The name of the lock of all cells that measure the same training."""
    kind = cell.training if cell.steps else replace(cell, row='patches')
    return f'cell {path.resolve()} {kind}'
