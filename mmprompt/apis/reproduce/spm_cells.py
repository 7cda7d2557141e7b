"""The cells of SPM's own tables: which trainings there are, how one runs, the rows that they leave.

Rates come first: each way of tuning is trained for a few steps at several learning rates on a part
of the training images and measured on the rest of them. The best rate is then used on all training
images, and the test images are seen once per way and seed.
"""

import copy
import functools
import itertools
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmprompt.apis.cli import find_config
from mmprompt.apis.csv_rows import Row, put_row, read_csv
from mmprompt.apis.test import test
from mmprompt.apis.train import latest_checkpoint, train
from mmprompt.common.checkpoint_hook import bare_model
from mmprompt.common.errors import UserError
from mmprompt.common.locks import process_lock

HELD_OUT, TEST = 'held-out', 'test'
#: Learning rates to choose from, in the order in which they are tried, and one more for ways that
#: train the backbone, where the smallest of these is best.
RATES, SMALLER = (1e-3, 3e-4, 3e-3), 1e-4
ALL = '1-5'
PLACES = {
    '1': ['layer1'],
    '1-3': ['layer1', 'layer2', 'layer3'],
    ALL: ['layer1', 'layer2', 'layer3', 'layer4', 'out'],
}
_TRAINED = ('full', 'scratch')
WORK_DIR = Path('work_dirs/reproduce')


@dataclass(frozen=True)
class Study:
    """What is run on one base and data set.

    Attributes:
        leaf: the config; its steps and optimiser are those of the test cells.
        metrics: of the data; the first decides which rate is best.
        seeds: how many by way of tuning, in the order of the table.
        places: rows of the ablation besides `ALL`.
        choose_steps: steps of the cells that choose a rate.
        held_out: options by which a part of the training images is kept for choosing.
    """

    leaf: str
    metrics: tuple[str, ...]
    seeds: Mapping[str, int]
    places: tuple[str, ...]
    choose_steps: int
    held_out: Mapping[str, Any] = field(default_factory=dict)


_VALIDATED = ('val_dataloader', 'test_dataloader')
STUDIES = {
    ('r50', 'chase-db1'): Study(
        'configs/spm/spm_r50_pup_chase-db1.py',
        ('Dice', 'Dice_mean_of_images'),
        dict(head=3, spm=3, full=1, scratch=1),
        ('1', '1-3'),
        200,
        {
            'train_dataloader.dataset.part': 'fit',
            **{f'{loader}.dataset.part': 'held-out' for loader in _VALIDATED},
        },
    ),
    ('r50', 'camvid'): Study(
        'configs/spm/spm_r50_psp_camvid.py',
        ('mIoU',),
        dict(head=1, spm=1),
        (),
        60,
        {
            'train_dataloader.dataset.frames': (0, -20),
            **{
                f'{loader}.dataset.{key}': value
                for loader in _VALIDATED
                for key, value in {
                    'data_prefix.img_path': 'train',
                    'data_prefix.seg_map_path': 'trainannot',
                    'frames': (-20, None),
                }.items()
            },
        },
    ),
}


@dataclass(frozen=True)
class SPMCell:
    """One training and its measurement.

    Attributes:
        base, data: a key of `STUDIES`.
        arm: the way of tuning.
        places: a key of `PLACES`; '-' if nothing is prompted.
        optimizer: its type.
        rate: learning rate, as printed.
        seed: of training.
        steps: of training.
        part: `HELD_OUT` or `TEST`, what is measured.
    """

    base: str
    data: str
    arm: str
    places: str
    optimizer: str
    rate: str
    seed: int
    steps: int
    part: str

    def __str__(self) -> str:
        places = '' if self.places == '-' else f' {self.places}'
        recipe = f'{self.optimizer} {self.rate}, {self.steps} steps, seed {self.seed}'
        return f'{self.base} on {self.data}: {self.arm}{places} ({recipe}), {self.part}'


KEYS = tuple(SPMCell.__dataclass_fields__)
COUNTS = ('backbone', 'prompt', 'head', 'train_seconds', 'seconds')


def find_study(base: str, data: str) -> Study:
    """The study of a base and data set.

    Raises:
        UserError: there is none.
    """
    if (base, data) not in STUDIES:
        known = ', '.join(f'--base {b} --data {d}' for b, d in STUDIES)
        raise UserError(
            f'spm: expected {known}, found --base {base} --data {data}. Correct the command.'
        )
    return STUDIES[base, data]


def columns_of(study: Study) -> tuple[str, ...]:
    """The columns of a study's CSV file."""
    return (*KEYS, *study.metrics, *COUNTS)


def read_spm_rows(path: Path, study: Study) -> list[Row]:
    """Finished cells; none if there is no file.

    Raises:
        UserError: the file holds other columns.
    """
    return read_csv(path, columns_of(study))


def spm_cell_of(row: Mapping[str, str]) -> SPMCell:
    """The cell that a row answers."""
    numbers = {key: int(row[key]) for key in ('seed', 'steps')}
    return SPMCell(**{key: row[key] for key in KEYS} | numbers)


def best_rate(base: str, data: str, arm: str, rows: Iterable[Row]) -> str | None:
    """The rate that a way of tuning takes; None until all that it is chosen from are measured."""
    scores = {spm_cell_of(row): row for row in rows}
    cells = _choice(base, data, arm, scores)
    if not set(cells) <= set(scores):
        return None
    return _best(cells, scores).rate


def _choice(base: str, data: str, arm: str, scores: Mapping[SPMCell, Row]) -> list[SPMCell]:
    """The cells that choose a rate, those of them that are known to be needed."""
    steps = find_study(base, data).choose_steps
    cells = [_cell(base, data, arm, rate, 0, steps, HELD_OUT) for rate in (*RATES, SMALLER)]
    first = cells[:-1]
    measured = arm in _TRAINED and set(first) <= set(scores)
    return cells if measured and float(_best(first, scores).rate) == min(RATES) else first


def _best(cells: list[SPMCell], scores: Mapping[SPMCell, Row]) -> SPMCell:
    metric = find_study(cells[0].base, cells[0].data).metrics[0]
    return max(cells, key=lambda cell: float(scores[cell][metric]))


@functools.cache
def _leaf(base: str, data: str) -> Config:
    return find_config(find_study(base, data).leaf)


def _cell(
    base: str,
    data: str,
    arm: str,
    rate: float | str,
    seed: int,
    steps: int,
    part: str,
    places: str = ALL,
) -> SPMCell:
    optimizer = _leaf(base, data).optim_wrapper.optimizer.type
    places = places if arm == 'spm' else '-'
    return SPMCell(base, data, arm, places, optimizer, f'{float(rate):g}', seed, steps, part)


def choosing_cells(base: str, data: str, rows: Iterable[Row]) -> list[SPMCell]:
    """The cells that choose rates, the same rate of every way after one another."""
    scores = {spm_cell_of(row): row for row in rows}
    chosen = [_choice(base, data, arm, scores) for arm in find_study(base, data).seeds]
    return [cell for same in itertools.zip_longest(*chosen) for cell in same if cell is not None]


def measured_cells(
    base: str, data: str, rows: Iterable[Row], arm: str, places: str = ALL
) -> list[SPMCell]:
    """The cells of a row of the tables; none until its rate is chosen."""
    study, rate = find_study(base, data), best_rate(base, data, arm, rows)
    if rate is None:
        return []
    steps = _leaf(base, data).train_cfg.max_iters
    seeds = study.seeds[arm] if places == ALL else 1
    return [_cell(base, data, arm, rate, s, steps, TEST, places) for s in range(seeds)]


def spm_cells(base: str, data: str, rows: Iterable[Row]) -> list[SPMCell]:
    """All cells that are known so far: those behind a choice appear when it is made."""
    study, rows = find_study(base, data), list(rows)
    cells = list(choosing_cells(base, data, rows))
    tests = [c for arm in study.seeds for c in measured_cells(base, data, rows, arm)]
    cells += sorted(tests, key=lambda cell: cell.seed)
    for places in study.places:
        cells += measured_cells(base, data, rows, 'spm', places)
    return cells


def spm_config(cell: SPMCell, work_dir: Path) -> Config:
    """The config of one cell."""
    study = find_study(cell.base, cell.data)
    cfg = copy.deepcopy(_leaf(cell.base, cell.data))
    options = {
        'model.backbone.tuning': cell.arm,
        'optim_wrapper.optimizer.lr': float(cell.rate),
        'randomness.seed': cell.seed,
        'train_cfg.max_iters': cell.steps,
        'param_scheduler.0.end': cell.steps,
    }
    if cell.places != '-':
        options['model.backbone.prompt_at'] = PLACES[cell.places]
    if cell.places not in ('-', ALL):
        options['model.expected_parameters'] = None  # the config counts all five
    cfg.merge_from_dict(options | (study.held_out if cell.part == HELD_OUT else {}))
    cfg.work_dir = str(work_dir)
    # Measured once, after training.
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.train_cfg.pop('val_interval', None)
    return cfg


def run_spm_cell(cell: SPMCell) -> Row:
    """Train and measure one cell, from its last checkpoint if it was stopped; returns its row."""
    start = time.perf_counter()
    folder = WORK_DIR / '_'.join(str(value) for value in asdict(cell).values())
    runner = train(spm_config(cell, folder), resume='auto')
    groups = bare_model(runner).parameter_groups()
    train_seconds = time.perf_counter() - start
    metrics = test(spm_config(cell, folder / 'test'), latest_checkpoint(folder))
    shutil.rmtree(folder)
    known = {m: f'{metrics[m]:.2f}' for m in find_study(cell.base, cell.data).metrics}
    seconds = time.perf_counter() - start
    times = dict(train_seconds=f'{train_seconds:.0f}', seconds=f'{seconds:.0f}')
    return {key: str(value) for key, value in (asdict(cell) | known | groups | times).items()}


def run_spm_missing(base: str, data: str, path: Path, limit: int | None = None) -> int:
    """Run what is neither finished nor being run by another process; returns how many were run.

    Args:
        base, data: of a study.
        path: the CSV file of finished cells.
        limit: most cells to run.
    """
    study, ran, busy = find_study(base, data), 0, set()
    while limit is None or ran < limit:
        rows = read_spm_rows(path, study)
        done = {spm_cell_of(row) for row in rows}
        left = [c for c in spm_cells(base, data, rows) if c not in done]
        cell = next((c for c in left if c not in busy), None)
        if cell is None:
            break
        with process_lock(f'cell {path.resolve()} {cell}', wait=False) as free:
            again = {spm_cell_of(row) for row in read_spm_rows(path, study)}
            if not free or cell in again:
                busy |= set() if free else {cell}
                continue
            print(f'== {cell} ({len(left)} known and left)', flush=True)
            put_row(path, columns_of(study), run_spm_cell(cell), spm_cell_of)
            ran += 1
    return ran


def list_spm_cells(base: str, data: str, path: Path) -> None:
    """Print the known cells with their state."""
    study = find_study(base, data)
    rows = read_spm_rows(path, study)
    done = {spm_cell_of(row) for row in rows}
    cells = spm_cells(base, data, rows)
    for cell in cells:
        print(f'{"done" if cell in done else "missing":<8}{cell}')
    open_arms = [arm for arm in study.seeds if best_rate(base, data, arm, rows) is None]
    print(f'{len(cells)} cells, {sum(c not in done for c in cells)} to run')
    if open_arms:
        print(f'more follow when the rates are chosen of: {", ".join(open_arms)}')
