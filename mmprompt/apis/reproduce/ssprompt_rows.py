"""The rows of SSPrompt's finished cells: one CSV file per base and suite, shared by processes."""

from collections.abc import Mapping
from pathlib import Path

from mmprompt.apis.csv_rows import Row, put_row, read_csv
from mmprompt.apis.reproduce.ssprompt_cells import Cell

KEYS = ('base', 'data', 'method', 'task', 'shots', 'seed', 'recipe')
#: In per cent; empty where a config does not measure it.
METRICS = ('mIoU', 'aAcc', 'PQ', 'PQ_th', 'PQ_st', 'SQ', 'RQ', 'AP', 'AP50')
COLUMNS = (*KEYS, *METRICS, 'parameters', 'train_seconds', 'seconds')


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
    return read_csv(path, COLUMNS, optional=METRICS)


def append_row(path: Path, row: Row) -> None:
    """Add a row in place of an older one of the same cell; see `put_row`."""
    put_row(path, COLUMNS, row, cell_of, optional=METRICS)
