"""Tables of results: run every cell of a grid, keep each finished one, continue after a stop."""

import argparse
import copy
import csv
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmprompt.apis.cli import find_config, run_command_line
from mmprompt.apis.test import test
from mmprompt.apis.train import train
from mmprompt.common.audit import trained_parameters
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.registry import MODELS

_AVERAGED = dict(weight=dict(_delete_=True, type='fixed', value=0.5))
# The rows of the paper's Table 5: which prompt learns, and whether its weights do.
_SPATIAL_OFF = dict(spatial_prompt=dict(_delete_=True, type='DefaultPrompt'))
_SEMANTIC_OFF = dict(semantic_prompt=dict(_delete_=True, type='DefaultPrompt'))
METHODS = {
    'zero-shot': dict(**_SPATIAL_OFF, **_SEMANTIC_OFF),
    'SpaPrompt, embedding only': dict(spatial_prompt=_AVERAGED, **_SEMANTIC_OFF),
    'SpaPrompt': _SEMANTIC_OFF,
    'SemPrompt, embedding only': dict(semantic_prompt=_AVERAGED, **_SPATIAL_OFF),
    'SemPrompt': _SPATIAL_OFF,
    'SSPrompt': {},
}
COLUMNS = ('data', 'method', 'shots', 'seed', 'miou', 'parameters', 'seconds')


@dataclass(frozen=True)
class Cell:
    """One number of a table. `shots` and `seed` are 0 for what learns nothing."""

    data: str
    method: str
    shots: int
    seed: int


@dataclass(frozen=True)
class Table:
    """A grid of cells.

    Attributes:
        configs: a 16-shot SSPrompt config per data set; a cell changes its prompts, shots and seed.
        shots: images per class.
        seeds: of the few-shot draw and of training alike.
        methods: rows.
    """

    configs: dict[str, str]
    shots: tuple[int, ...] = (16,)
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = tuple(METHODS)

    def cells(self) -> Iterator[Cell]:
        """All cells, one seed after the other, so that a stopped run has whole columns."""
        for data in self.configs:
            yield Cell(data, 'zero-shot', 0, 0)
        for seed in self.seeds:
            for data in self.configs:
                for shots in self.shots:
                    for method in self.methods:
                        if method != 'zero-shot':
                            yield Cell(data, method, shots, seed)


TABLES = {
    'streets': Table(
        configs={
            condition: f'configs/ssprompt/nano_streets-{condition}_16shot.py'
            for condition in ('fog', 'night', 'rain', 'snow')
        },
        methods=('zero-shot', 'SpaPrompt', 'SemPrompt', 'SSPrompt'),
    ),
    'camvid-dusk': Table(
        configs={'camvid-dusk': 'configs/ssprompt/r50_camvid-dusk_16shot.py'},
        shots=(4, 8, 16),
    ),
}


def cell_config(table: Table, cell: Cell, work_dir: str) -> Config:
    """The config of one cell: the table's own, with the cell's prompts, shots and seed."""
    cfg = find_config(table.configs[cell.data])
    cfg.model.expected_parameters = None
    # A copy: merging takes `_delete_` out of what it is given.
    cfg.merge_from_dict(dict(model=dict(decode_head=copy.deepcopy(METHODS[cell.method]))))
    cfg.work_dir = work_dir
    cfg.randomness = dict(seed=cell.seed)
    few_shot = cfg.train_dataloader.dataset
    few_shot.pop('manifest', None)
    few_shot.update(k=cell.shots, seed=cell.seed)
    # The test split is measured once, after training; the split for choosing is not needed.
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.train_cfg.pop('val_interval', None)
    return cfg


def run_cell(table: Table, cell: Cell) -> dict:
    """Train and measure one cell; returns its row."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = cell_config(table, cell, folder)
        parameters = sum(trained_parameters(MODELS.build(cfg.model)).values())
        start, prompt = time.perf_counter(), None
        if parameters:
            train(cfg)
            prompt = Path(folder) / 'prompt.safetensors'
        seconds = time.perf_counter() - start
        miou = test(cfg, prompt)['mIoU']
    gc.collect()  # the Runner's reference cycles hold the cached features
    return dict(
        data=cell.data, method=cell.method, shots=cell.shots, seed=cell.seed,
        miou=round(miou, 2), parameters=parameters, seconds=round(seconds, 1),
    )  # fmt: skip


def read_rows(path: Path) -> list[dict]:
    """Rows of a CSV file that `append_row` wrote; none if there is no file.

    Raises:
        UserError: the file holds other columns.
    """
    if not path.is_file():
        return []
    with path.open(newline='') as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(
                f'{path}: expected the columns {",".join(COLUMNS)}, found '
                f'{",".join(reader.fieldnames or ["none"])}. Give another --out.'
            )
        return list(reader)


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())


def cell_of(row: dict) -> Cell:
    """The cell that a row of the CSV file answers."""
    return Cell(row['data'], row['method'], int(row['shots']), int(row['seed']))


def format_rows(rows: list[dict]) -> str:
    """Markdown: methods down, data and shots across; mean ± standard deviation over the seeds."""
    groups: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        key = (row['data'], int(row['shots']))
        groups.setdefault(key, {}).setdefault(row['method'], []).append(float(row['miou']))
    columns = sorted({key for key in groups if key[1]}, key=lambda key: (key[0], key[1]))
    methods = [m for m in METHODS if any(m in group for group in groups.values())]
    lines = [
        '| method | ' + ' | '.join(f'{data}, {shots}-shot' for data, shots in columns) + ' |',
        '|---' * (len(columns) + 1) + '|',
    ]
    for method in methods:
        cells = []
        for data, shots in columns:
            where = (data, 0 if method == 'zero-shot' else shots)
            cells.append(_mean(groups.get(where, {}).get(method, [])))
        lines.append(f'| {method} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='reproduce.py',
        description='Run a table of results cell by cell; a second call continues.',
    )
    parser.add_argument('table', choices=sorted(TABLES))
    parser.add_argument('--out', help='CSV file (default docs/results/TABLE.csv)')
    parser.add_argument('--dry-run', action='store_true', help='list the missing cells only')
    args = parser.parse_args(argv)

    def body() -> None:
        table, path = TABLES[args.table], Path(args.out or f'docs/results/{args.table}.csv')
        rows = read_rows(path)
        done = {cell_of(row) for row in rows}
        missing = [cell for cell in table.cells() if cell not in done]
        for i, cell in enumerate(missing):
            print(f'== {i + 1} of {len(missing)}: {cell}', flush=True)
            if not args.dry_run:
                rows.append(run_cell(table, cell))
                write_rows(path, rows)
        print(format_rows(rows))

    return run_command_line(body)
