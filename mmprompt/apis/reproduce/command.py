"""``tools/reproduce.py``: run the cells of a table, keep each one, continue after a stop."""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config

from mmprompt.apis.cli import run_command_line
from mmprompt.apis.csv_rows import Row, write_csv
from mmprompt.apis.markdown import put_into
from mmprompt.apis.prepare.few_shot import training_dataset
from mmprompt.apis.reproduce.demo_table import demo_text, missing_methods, run_demo
from mmprompt.apis.reproduce.efficiency_table import (
    COMMAND,
    EFFICIENCY,
    efficiency_caption,
    efficiency_markdown,
    efficiency_rows,
    read_efficiency,
)
from mmprompt.apis.reproduce.samcp_rows import STUDIES
from mmprompt.apis.reproduce.samcp_suites import SAMCP_TABLES
from mmprompt.apis.reproduce.samcp_tables import choose_tables, reproduce_samcp
from mmprompt.apis.reproduce.spm_tables import reproduce_spm
from mmprompt.apis.reproduce.ssprompt_cells import UNTRAINED, Cell, cell_config, cells_of
from mmprompt.apis.reproduce.ssprompt_rows import append_row, cell_of, make_row, read_rows
from mmprompt.apis.reproduce.ssprompt_suites import SUITES, TABLES, Suite, find_suite, suite_name
from mmprompt.apis.reproduce.ssprompt_tables import (
    SUMMARY_COLUMNS,
    Summary,
    caption,
    to_markdown,
    to_summary_rows,
)
from mmprompt.apis.test import test
from mmprompt.apis.train import train
from mmprompt.common.audit import trained_parameters
from mmprompt.common.files import atomic_file
from mmprompt.common.locks import process_lock
from mmprompt.common.prompt_file import PROMPT_FILE
from mmprompt.datasets.few_shot import make_manifest
from mmprompt.registry import MODELS


def run_cell(cell: Cell) -> Row:
    """Train and measure one cell; returns its row."""
    start, train_seconds, prompt = time.perf_counter(), 0.0, None
    with tempfile.TemporaryDirectory() as folder:
        cfg = cell_config(cell, folder)
        parameters = 0
        if cell.shots:
            parameters = sum(trained_parameters(MODELS.build(cfg.model)).values())
            _make_manifest(cfg, cell)
            begin = time.perf_counter()
            train(cfg)
            train_seconds = time.perf_counter() - begin
            prompt = Path(folder) / PROMPT_FILE
        metrics = test(cfg, prompt)
    gc.collect()  # the Runner's reference cycles hold the cached features
    return make_row(cell, metrics, parameters, train_seconds, time.perf_counter() - start)


def _make_manifest(cfg: Config, cell: Cell) -> None:
    few_shot = cfg.train_dataloader.dataset
    path = Path(few_shot.get('manifest') or '')
    if few_shot.get('manifest') and not path.is_file():
        sampling = few_shot.get('sampling', 'rarest-first')
        missing = few_shot.get('allow_missing', False)
        dataset = training_dataset(cfg)
        make_manifest(dataset, cell.shots, cell.seed, sampling, missing).save(path)


class Estimate:
    """How long cells will take, from those that are finished.

    Args:
        rows: finished cells of the same base and suite.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._by: dict[tuple, list[float]] = {}
        for row in rows:
            cell, seconds = cell_of(row), float(row['seconds'])
            for key in self._keys(cell):
                self._by.setdefault(key, []).append(seconds)

    @staticmethod
    def _keys(cell: Cell) -> list[tuple]:
        """From what is most alike to what is least."""
        kind = (cell.method in UNTRAINED, cell.task)
        return [(cell.method, cell.data, cell.task), (cell.method, cell.task), kind, kind[:1]]

    def seconds(self, cells: Iterable[Cell]) -> float | None:
        """Of all cells together; None if nothing like one of them is finished."""
        total = 0.0
        for cell in cells:
            near = next((self._by[key] for key in self._keys(cell) if key in self._by), None)
            if near is None:
                return None
            total += statistics.mean(near)
        return total

    def text(self, cells: Iterable[Cell]) -> str:
        """`seconds` for a reader."""
        seconds = self.seconds(cells)
        if seconds is None:
            return 'time not yet known'
        return f'about {seconds / 60:.0f} min' if seconds >= 90 else f'about {seconds:.0f} s'


def run_missing(cells: Iterable[Cell], path: Path, limit: int | None = None) -> int:
    """Run what is neither finished nor being run by another process; returns how many were run.

    Args:
        cells: in this order.
        path: the CSV file of finished cells.
        limit: most cells to run.
    """
    ran, cells = 0, list(cells)
    for number, cell in enumerate(cells, 1):
        if limit is not None and ran >= limit:
            break
        with process_lock(_claim(path, cell), wait=False) as free:
            rows = read_rows(path)
            done = {cell_of(row) for row in rows}
            if not free or cell in done:
                continue
            left = [c for c in cells if c not in done]
            print(f'== {cell} ({len(left)} left, {Estimate(rows).text(left)})', flush=True)
            row = run_cell(cell)
            append_row(path, row)
            ran += 1
            print(f'== cell {number} done: mIoU {row["mIoU"]}, {row["seconds"]} s', flush=True)
    return ran


def _claim(path: Path, cell: Cell) -> str:
    return f'cell {path.resolve()} {cell}'


def _state(path: Path, cell: Cell, done: set[Cell]) -> str:
    if cell in done:
        return 'done'
    with process_lock(_claim(path, cell), wait=False) as free:
        return 'missing' if free else 'running'


def list_cells(cells: Iterable[Cell], path: Path) -> None:
    """Print the cells with their state and the time that the missing ones will take."""
    cells, rows = list(cells), read_rows(path)
    done, estimate = {cell_of(row) for row in rows}, Estimate(rows)
    for cell in cells:
        state = _state(path, cell, done)
        print(f'{state:<8}{cell}' + ('' if state == 'done' else f': {estimate.text([cell])}'))
    missing = [cell for cell in cells if cell not in done]
    print(f'{len(cells)} cells, {len(missing)} to run: {estimate.text(missing)}')


def write_tables(
    names: Iterable[str],
    base: str,
    data: str,
    suite: Suite,
    folder: Path,
    seeds: tuple[int, ...] | None = None,
    into: Path | None = None,
) -> str:
    """Write tables of finished cells as Markdown and CSV into `folder`; returns the Markdown.

    Args:
        names: of `TABLES`.
        base, data: as on the command line.
        suite: that of base and data.
        folder: with `cells.csv`.
        seeds: instead of each table's own.
        into: a text file whose marked blocks are replaced; see `put_into`.
    """
    rows, blocks = read_rows(folder / 'cells.csv'), {}
    for name in names:
        summary = Summary(TABLES[name], base, suite, rows, seeds)
        if not summary.columns:
            continue
        text = f'{caption(summary)}\n\n{to_markdown(summary)}'
        blocks[f'table {name} {base} {data}'] = text
        _write_table(folder, name, text, to_summary_rows(summary))
    if into is not None:
        put_into(into, blocks)
    return '\n\n'.join(blocks.values())


def _write_table(folder: Path, name: str, text: str, rows: list[dict]) -> None:
    stem = f'table-{name}' if name.isdecimal() else name
    with atomic_file(folder / f'{stem}.md') as stream:
        stream.write(f'{text}\n'.encode())
    write_csv(folder / f'{stem}.csv', SUMMARY_COLUMNS, rows)


def write_efficiency(name: str, measured: Path, folder: Path, into: Path | None = None) -> str:
    """Write Table 7 or 9 from what the benchmark measured; returns the Markdown."""
    rates = read_efficiency(measured)
    text = f'{efficiency_caption(name)}\n\n{efficiency_markdown(name, rates)}'
    _write_table(folder, name, text, efficiency_rows(name, rates))
    if into is not None:
        put_into(into, {f'table {name}': text})
    return text


def write_demo(measured: Path, into: Path | None = None) -> str:
    """Run what is missing of the demo's table, keep it in `measured`; returns the Markdown."""
    text = demo_text(run_demo(measured))
    with atomic_file(measured.with_suffix('.md')) as stream:
        stream.write(f'{text}\n'.encode())
    if into is not None:
        put_into(into, {'table demo': text})
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='reproduce.py',
        description='Run the cells of a table; a second call continues. Several processes may run '
        'at once: they share the cells.',
        epilog='; '.join(f'{table.name}: {table.title}' for table in TABLES.values()) + '; '
        'demo: what `make demo` runs; 7 and 9: training efficiency; spm: ways of tuning of SPM, '
        '--base r50 --data chase-db1 or camvid; samcp: Tables 1 to 15 of SAM-CP, or those named '
        'behind it, --base nano --data streets or --base r50 --data coco128; all: those of --base '
        'and --data, without demo, 7, 9, spm and samcp.',
    )
    parser.add_argument(
        'table',
        choices=[*TABLES, *EFFICIENCY, 'demo', 'spm', 'samcp', 'all'],
        metavar='TABLE',
        help='a number of the papers, or one of the names below',
    )
    parser.add_argument(
        'more',
        nargs='*',
        metavar='NUMBER',
        help=f'behind samcp: tables of its paper, 1 to {len(SAMCP_TABLES)} (default all)',
    )
    bases = list(dict.fromkeys(base for base, _ in (*SUITES, *STUDIES)))
    parser.add_argument(
        '--base', choices=bases, help='the frozen model (default nano, or the one of the table)'
    )
    parser.add_argument(
        '--data', help='streets, camvid, public, or one data set of these (default likewise)'
    )
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the table's own")
    parser.add_argument('--limit', type=int, help='most cells to run now')
    parser.add_argument('--steps', type=int, help="samcp: of every training, not the config's")
    parser.add_argument('--minutes', type=float, help='samcp: begin no further cell after these')
    parser.add_argument('--dry-run', action='store_true', help='list the cells, run nothing')
    parser.add_argument('--out', help='folder of results (default docs/results/BASE_SUITE)')
    parser.add_argument(
        '--measured',
        default='docs/results/ssprompt_efficiency.csv',
        help='what benchmarks/ssprompt_efficiency.py wrote, of which Tables 7 and 9 are made',
    )
    parser.add_argument('--into', help='text file whose marked blocks get the tables')
    return parser


def _run_efficiency(args: argparse.Namespace, into: Path | None) -> None:
    measured = Path(args.measured)
    if args.dry_run:
        state = 'done' if measured.is_file() else 'missing'
        print(f'{state:<8}{COMMAND} {measured.with_suffix("")}')
        return
    print(write_efficiency(args.table, measured, Path(args.out or 'docs/results'), into))


def _run_demo(args: argparse.Namespace, into: Path | None) -> None:
    measured = Path(args.out or 'docs/results') / 'demo.csv'
    if args.dry_run:
        missing = missing_methods(measured)
        print(f'{len(missing)} to run: {", ".join(missing) or "none"} ({measured})')
        return
    print(write_demo(measured, into))


def _run_spm(args: argparse.Namespace, into: Path | None) -> None:
    base, data = args.base or 'r50', args.data or 'chase-db1'
    folder = Path(args.out or f'docs/results/spm_{data}')
    reproduce_spm(base, data, folder, args.dry_run, args.limit, into)


def _run_samcp(args: argparse.Namespace, into: Path | None) -> None:
    reproduce_samcp(
        choose_tables(args.more, args.base, args.data),
        Path(args.out or 'docs/results'),
        steps=args.steps,
        seeds=tuple(args.seeds or (0,)),
        dry_run=args.dry_run,
        limit=args.limit,
        minutes=args.minutes,
        into=into,
    )


def _run_tables(args: argparse.Namespace, into: Path | None) -> None:
    home = TABLES[args.table].home if args.table in TABLES else ('nano', 'streets')
    base = args.base or home[0]
    data = args.data or (home[1] if base == home[0] else _first_data(base))
    suite, seeds = find_suite(base, data), tuple(args.seeds) if args.seeds else None
    folder = Path(args.out or f'docs/results/{base}_{suite_name(base, data)}')
    names = list(suite.tables) if args.table == 'all' else [args.table]
    cells = dict.fromkeys(
        cell for name in names for cell in cells_of(TABLES[name], base, suite, seeds)
    )
    path = folder / 'cells.csv'
    if args.dry_run:
        list_cells(cells, path)
        return
    run_missing(sorted(cells, key=lambda cell: cell.seed), path, args.limit)
    print(write_tables(names, base, data, suite, folder, seeds, into))


def _first_data(base: str) -> str:
    return next(data for owner, data in SUITES if owner == base)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.table != 'samcp' and (args.more or args.steps or args.minutes):
        parser.error('further tables, --steps and --minutes are for samcp')
    if min(args.steps or 1, args.minutes or 1) <= 0:
        parser.error('--steps and --minutes must be above 0')
    into = Path(args.into) if args.into else None
    run = _run_efficiency if args.table in EFFICIENCY else _run_tables
    run = {'demo': _run_demo, 'spm': _run_spm, 'samcp': _run_samcp}.get(args.table, run)
    return run_command_line(lambda: run(args, into))
