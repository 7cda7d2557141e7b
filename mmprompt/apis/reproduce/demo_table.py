"""The table of ``make demo``, kept in a file: its methods once, in the demo's own way."""

from pathlib import Path

from mmprompt.apis.csv_rows import read_csv, write_csv
from mmprompt.apis.demo import METHODS, format_table, make_data, run_method
from mmprompt.common.locks import process_lock

COLUMNS = ('method', 'mIoU', 'parameters', 'bytes', 'seconds')
WORK_DIR = Path('work_dirs/demo')
CAPTION = (
    '**The demo**, base `nano` on `streets-fog`, mIoU; one seed. Seconds of the whole command.'
)


def read_demo(path: Path) -> dict[str, dict]:
    """Results by method as `mmprompt.apis.demo.run_method` gives them; none without a file.

    Raises:
        UserError: the file holds other columns.
    """
    return {
        row['method']: dict(
            miou=float(row['mIoU']),
            parameters=int(row['parameters']),
            bytes=int(row['bytes']),
            seconds=float(row['seconds']) if row['seconds'] else None,
        )
        for row in read_csv(path, COLUMNS)
    }


def missing_methods(path: Path) -> list[str]:
    """The methods that are not in the file."""
    done = read_demo(path)
    return [name for name in METHODS if name not in done]


def run_demo(path: Path) -> dict[str, dict]:
    """Run the methods that the file lacks and add them; returns all results.

    What the demo itself left in its folder, of the same config, data and base, is taken over.
    """
    with process_lock(f'demo {path.resolve()}'):
        if missing_methods(path):
            make_data()
        for name in missing_methods(path):
            results = read_demo(path) | {name: run_method(name, WORK_DIR / name.lower())}
            write_csv(path, COLUMNS, [_row(m, results[m]) for m in METHODS if m in results])
        return read_demo(path)


def _row(method: str, result: dict) -> dict:
    seconds = '' if result['seconds'] is None else f'{result["seconds"]:.1f}'
    row = dict(method=method, mIoU=f'{result["miou"]:.2f}', parameters=result['parameters'])
    return row | dict(bytes=result['bytes'], seconds=seconds)


def demo_text(results: dict[str, dict]) -> str:
    """Caption and table, as they stand in docs/results.md."""
    return f'{CAPTION}\n\n{format_table(results)}'
