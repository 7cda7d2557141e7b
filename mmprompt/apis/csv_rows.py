"""CSV files whose columns are known: checked when read, replaced whole when written."""

import csv
import io
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.common.locks import process_lock

Row = dict[str, str]


def read_csv(
    path: Path,
    columns: Collection[str],
    *,
    optional: Collection[str] = (),
    others: bool = False,
    mend: str = 'Give another --out.',
) -> list[Row]:
    """Rows of a file; none if there is no file.

    Args:
        path: the file.
        columns: what it holds, in any order.
        optional: those of them that may lack; empty in the rows then.
        others: whether there may be more.
        mend: the last sentence of the error.

    Raises:
        UserError: the file holds other columns.
    """
    if not path.is_file():
        return []
    with path.open(newline='') as stream:
        reader = csv.DictReader(stream)
        found = reader.fieldnames or ()
        extra = set() if others else set(found) - set(columns)
        if extra or not set(columns) - set(optional) <= set(found):
            raise UserError(
                f'{path}: expected the columns {",".join(columns)}, found '
                f'{",".join(found) or "none"}. {mend}'
            )
        return [dict.fromkeys(columns, '') | row for row in reader]


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())


def put_row(
    path: Path,
    columns: Collection[str],
    row: Row,
    key: Callable[[Row], Hashable],
    optional: Collection[str] = (),
) -> None:
    """Add a row in place of those with its key, at the end of a file with the given columns.

    Safe when several processes add to one file, and at any moment to be killed.
    """
    with process_lock(f'rows {path.resolve()}'):
        rows = [r for r in read_csv(path, columns, optional=optional) if key(r) != key(row)]
        write_csv(path, columns, [*rows, row])
