"""SAM-CP's own tables, ``tools/reproduce.py samcp``, with the paper's numbers beside."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmprompt.apis.csv_rows import Row, read_csv
from mmprompt.apis.markdown import format_numbers, grid, put_into
from mmprompt.apis.reproduce.samcp_cells import (
    SAMCPCell,
    claim,
    make_cell,
    missing_files,
    read_samcp_rows,
    run_samcp_missing,
    samcp_cell_of,
    samcp_cells,
)
from mmprompt.apis.reproduce.samcp_paper import MAKING, PROPOSALS, REST, TOTAL, samcp_figures
from mmprompt.apis.reproduce.samcp_rows import ALL, STUDIES
from mmprompt.apis.reproduce.samcp_suites import SAMCP_TABLES, SAMCPTable, find_place
from mmprompt.common.errors import UserError
from mmprompt.common.locks import process_lock

CELLS, TIMES = 'samcp_cells.csv', 'samcp_split.csv'
Place = tuple[str, str]
Chosen = Sequence[tuple[SAMCPTable, Place]]
_NAMES = {
    'object_IoU': 'mIoU of objects',
    'object_IoU>0.5': 'mIoU>0.5',
    'mIoU_seen': 'mIoU, seen',
    'mIoU_unseen': 'mIoU, unseen',
    'AP_seen': 'AP, seen',
    'AP_unseen': 'AP, unseen',
}


def choose_tables(
    numbers: Iterable[str], base: str | None, data: str | None
) -> list[tuple[SAMCPTable, Place]]:
    """Tables with the study that is meant: the first that has this base and data.

    Args:
        numbers: of tables; none for all.
        base, data: of a study; None for any.

    Raises:
        UserError: there is no such table or study, or a table that was named is not for it.
    """
    chosen, numbers = [], list(numbers)
    unknown = [number for number in numbers if number not in SAMCP_TABLES]
    if unknown:
        raise UserError(
            f'samcp: expected tables of the paper, {", ".join(SAMCP_TABLES)}, found '
            f'{", ".join(unknown)}. Correct the command.'
        )
    for table in SAMCP_TABLES.values():
        if numbers and table.number not in numbers:
            continue
        place = find_place(table, base, data)
        if place is not None:
            chosen.append((table, place))
        elif numbers:
            known = ', '.join(f'--base {b} --data {d}' for b, d in table.places)
            raise UserError(
                f'samcp {table.number}: expected {known}, found --base {base} --data {data}. '
                f'Correct the command.'
            )
    return chosen


class SAMCPResults:
    """Finished cells.

    Args:
        folder: with `CELLS` and, for Table 11, `TIMES`.
        steps: of training; None for those of the configs.
        seeds: that count.
    """

    def __init__(self, folder: Path, steps: int | None = None, seeds: Sequence[int] = (0,)) -> None:
        self.steps, self.seeds = steps, tuple(seeds)
        rows = read_samcp_rows(folder / CELLS)
        self._by_cell = {samcp_cell_of(row): row for row in rows}
        self._times = read_times(folder / TIMES)

    def cells(self, place: Place, row: str) -> list[SAMCPCell]:
        """Of a row of a table, one by seed."""
        return list(dict.fromkeys(make_cell(place, row, self.steps, s) for s in self.seeds))

    def numbers(self, place: Place, row: str, metric: str) -> list[float]:
        """What was measured, by seed."""
        if metric in (MAKING, REST, TOTAL):
            return self._times.get((place, row, metric), [])
        rows = [self._by_cell.get(cell, {}) for cell in self.cells(place, row)]
        return [float(found[metric]) for found in rows if found.get(metric)]

    def steps_of(self, place: Place, rows: Iterable[str]) -> int:
        """Of the trainings of a table; 0 if there are none."""
        return max(make_cell(place, row, self.steps).steps for row in rows)


def read_times(path: Path) -> dict[tuple[Place, str, str], list[float]]:
    """Seconds per image by study, row and column, as benchmarks/samcp.py wrote them."""
    columns = ('config', 'label', MAKING, REST, TOTAL)
    found: dict[tuple[Place, str, str], list[float]] = {}
    for row in read_csv(path, columns, others=True, mend='Measure again.'):
        for place, study in STUDIES.items():
            leaf = Path(study.test_leaf or study.leaf).stem
            for name, label in study.generators.items():
                if (leaf, label) == (row['config'], row['label']):
                    for column in columns[2:]:
                        found[place, name, column] = [float(row[column])]
    return found


def table_text(table: SAMCPTable, place: Place, results: SAMCPResults) -> str:
    """A table as Markdown: measured columns, then the paper's, each marked so."""
    study, rows, metrics = STUDIES[place], table.places[place], table.metrics_of(place)
    data = table.data if study.is_small else study.data
    paper = samcp_figures(table.number, data)
    printed = list(dict.fromkeys(metric for _, metric in paper))
    heads = ['row', *map(_name, metrics), *(f'*paper*: {_name(m)}' for m in printed)]
    lines = []
    for row in rows:
        expected = len(results.cells(place, row))
        measured = [_number(results.numbers(place, row, m), m, expected) for m in metrics]
        lines.append([study.variant(row).title, *measured, *_paper(paper, row, printed)])
    # Whom the paper stands beside.
    for row in dict.fromkeys(row for row, _ in paper):
        if row not in rows and (row == ALL or not study.has(row)):
            name = f'SAM-CP, {data}' if row == ALL else row
            lines.append([name, *('' for _ in metrics), *_paper(paper, row, printed)])
    return f'{_caption(table, place, results, data)}\n\n{grid(heads, lines)}'


def _name(metric: str) -> str:
    return _NAMES.get(metric, metric if metric in PROPOSALS else metric.replace('_', '-'))


def _number(numbers: list[float], metric: str, expected: int) -> str:
    if metric in (MAKING, REST, TOTAL):
        return f'{numbers[0]:.2f}' if numbers else '-'
    return format_numbers(numbers, expected)


def _paper(figures: Mapping[tuple[str, str], float], row: str, metrics: Iterable[str]) -> list[str]:
    cells = []
    for metric in metrics:
        value = figures.get((row, metric))
        digits = 2 if metric in (MAKING, REST, TOTAL) else 1
        cells.append('' if value is None else f'*{value:.{digits}f}*')
    return cells


def _caption(table: SAMCPTable, place: Place, results: SAMCPResults, data: str) -> str:
    steps = results.steps_of(place, table.places[place])
    over = f', {steps} steps' if steps else ''
    if steps and len(results.seeds) > 1:
        over += f'; mean ± standard deviation of {len(results.seeds)} seeds'
    elif steps:
        over += ', one seed'
    text = f'**Table {table.number}, {table.title}**, base `{place[0]}` on `{place[1]}`{over}.'
    if STUDIES[place].is_small:
        kind = 'of another backbone and schedule' if table.number != '9' else "of SAM's patches"
        text += f" Columns marked *paper* are the paper's own ({data}, {kind}): not measured."
    return text


def block_name(table: SAMCPTable, place: Place, results: SAMCPResults) -> str:
    """Of the marked block in a text: `table samcp NUMBER BASE DATA`, and the steps if any."""
    steps = results.steps_of(place, table.places[place])
    return ' '.join(['table samcp', table.number, *place, *([str(steps)] if steps else [])])


def write_samcp_tables(chosen: Chosen, results: SAMCPResults, into: Path | None = None) -> str:
    """The tables of finished cells as Markdown.

    Args:
        chosen: of `choose_tables`.
        results: the cells.
        into: a text file whose marked blocks are replaced; see `put_into`.
    """
    blocks = {block_name(t, p, results): table_text(t, p, results) for t, p in chosen}
    if into is not None:
        put_into(into, blocks)
    return '\n\n'.join(blocks.values())


def list_samcp_cells(chosen: Chosen, path: Path, steps: int | None, seeds: Sequence[int]) -> None:
    """Print cells by table with their state, and the paper's own setting."""
    rows = read_samcp_rows(path)
    done, needed = {samcp_cell_of(row) for row in rows}, set()
    left: dict[SAMCPCell, None] = {}
    for table, place in chosen:
        print(f'\nTable {table.number}, {table.title}, base {place[0]} on {place[1]}')
        for cell in samcp_cells([(table, place)], steps, seeds):
            missing = [] if cell in done else missing_files(cell)
            state = 'done' if cell in done else 'needs' if missing else _state(path, cell)
            needs = f': {", ".join(missing)}' if missing else ''
            print(f'  {state:<8}{cell}{needs}')
            if missing:
                needed.add(place)
            elif cell not in done:
                left[cell] = None
        print(paper_commands(table))
    for place in dict.fromkeys(p for _, p in chosen if p in needed):
        study = STUDIES[place]
        print(f'\nWhat {place[0]} on {place[1]} needs: the head of {study.leaf} tells')
        for command in study.mends:
            print(f'  {command}')
    print(f'\n{len(left)} cells to run{_time_text(rows, left)}')


def _state(path: Path, cell: SAMCPCell) -> str:
    with process_lock(claim(path, cell), wait=False) as free:
        return 'missing' if free else 'running'


def _time_text(rows: Iterable[Row], cells: Iterable[SAMCPCell]) -> str:
    """How long trainings will take, by the seconds of a step of those that are finished."""
    rates: dict[Place, list[float]] = {}
    for row in rows:
        cell = samcp_cell_of(row)
        if row['train_seconds']:
            rates.setdefault(cell.place, []).append(float(row['train_seconds']) / cell.steps)
    trainings = {cell.training for cell in cells if cell.steps}
    if not trainings or any(cell.place not in rates for cell in trainings):
        return ''
    seconds = sum(
        cell.steps * sum(rates[cell.place]) / len(rates[cell.place]) for cell in trainings
    )
    return f', trainings of about {seconds / 60:.0f} min'


def paper_commands(table: SAMCPTable) -> str:
    """How the paper's own setting of a table is run."""
    lines = [
        f'  paper   torchrun --nproc_per_node 8 tools/train.py configs/samcp/{config}.py'
        for config in table.configs
    ]
    if table.number == '9':
        lines = [
            f'  paper   python tools/patch_stats.py configs/samcp/{config}.py --split test'
            for config in table.configs
        ]
    return '\n'.join(lines + ([f'          {table.note}'] if table.note else []))


def reproduce_samcp(
    chosen: Chosen,
    folder: Path,
    *,
    steps: int | None = None,
    seeds: Sequence[int] = (0,),
    dry_run: bool = False,
    limit: int | None = None,
    minutes: float | None = None,
    into: Path | None = None,
) -> None:
    """List the cells, or run those that are missing and print the tables.

    Args:
        chosen: of `choose_tables`.
        folder: of `CELLS`.
        steps: of every training; None for those of the configs.
        seeds: of training.
        dry_run: run nothing.
        limit, minutes: see `run_samcp_missing`.
        into: see `write_samcp_tables`.
    """
    path = folder / CELLS
    if dry_run:
        list_samcp_cells(chosen, path, steps, seeds)
        return
    run_samcp_missing(samcp_cells(chosen, steps, seeds), path, limit, minutes)
    print(write_samcp_tables(chosen, SAMCPResults(folder, steps, seeds), into))
