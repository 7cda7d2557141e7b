"""The rows that finished cells leave: one CSV file per base and suite, shared by processes."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmprompt.apis.cells import Cell
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.common.locks import process_lock

KEYS = ('base', 'data', 'method', 'task', 'shots', 'seed', 'recipe')
#: In per cent; empty where a config does not measure it.
METRICS = ('mIoU', 'aAcc', 'PQ', 'PQ_th', 'PQ_st', 'SQ', 'RQ', 'AP', 'AP50')
COLUMNS = (*KEYS, *METRICS, 'parameters', 'train_seconds', 'seconds')
Row = dict[str, str]


def make_row(
    cell: Cell, metrics: Mapping[str, float], parameters: int, train_seconds: float, seconds: float
) -> Row:
    """The row of a finished cell.

    Args:
        cell: what was run.
        metrics: by name, in per cent; others than `METRICS` are left out.
        parameters: how many were trained.
        train_seconds: of training alone.
        seconds: of the whole cell.
    """
    known = {name: f'{metrics[name]:.2f}' for name in METRICS if name in metrics}
    row = {key: str(getattr(cell, key)) for key in KEYS} | dict.fromkeys(METRICS, '') | known
    row |= dict(parameters=str(parameters), train_seconds=f'{train_seconds:.1f}')
    return row | dict(seconds=f'{seconds:.1f}')


def cell_of(row: Mapping[str, str]) -> Cell:
    """The cell that a row answers."""
    numbers = {key: int(row[key]) for key in ('shots', 'seed')}
    return Cell(**{key: row[key] for key in KEYS} | numbers)


def read_rows(path: Path) -> list[Row]:
    """Rows of a file that `append_row` wrote; none if there is no file.

    A metric for which an older file has no column is empty in its rows.

    Raises:
        UserError: the file holds other columns.
    """
    if not path.is_file():
        return []
    with path.open(newline='') as stream:
        reader = csv.DictReader(stream)
        found = set(reader.fieldnames or ())
        if not set(COLUMNS) - set(METRICS) <= found <= set(COLUMNS):
            raise UserError(
                f'{path}: expected the columns {",".join(COLUMNS)}, found '
                f'{",".join(reader.fieldnames or ["none"])}. Give another --out.'
            )
        return [dict.fromkeys(COLUMNS, '') | row for row in reader]


def append_row(path: Path, row: Row) -> None:
    """Add a row; safe when several processes add to one file, and at any moment to be killed."""
    with process_lock(f'rows {path.resolve()}'):
        rows = [kept for kept in read_rows(path) if cell_of(kept) != cell_of(row)]
        write_csv(path, COLUMNS, [*rows, row])


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())
