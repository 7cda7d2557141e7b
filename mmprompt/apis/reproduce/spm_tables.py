"""SPM's own tables, ``tools/reproduce.py spm``: ways of tuning, places and rates, as Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmprompt.apis.csv_rows import Row
from mmprompt.apis.markdown import format_numbers, grid, put_into
from mmprompt.apis.reproduce.spm_cells import (
    ALL,
    SPMCell,
    best_rate,
    choosing_cells,
    find_study,
    list_spm_cells,
    measured_cells,
    read_spm_rows,
    run_spm_missing,
    spm_cell_of,
)
from mmprompt.apis.reproduce.spm_paper import IMAGENET, spm_figures
from mmprompt.common.files import atomic_file

NAMES = dict(head='head tuning', spm='SPM', full='full tuning', scratch='from scratch')
METRIC_NAMES = dict(Dice_mean_of_images='mean Dice of the images')
#: Data of ours -> the paper's name of it.
PAPER_DATA = {'chase-db1': 'CHASE-DB1'}


class Results:
    """Finished cells of one study.

    Args:
        base, data: of the study.
        rows: as `read_spm_rows` gives them.
    """

    def __init__(self, base: str, data: str, rows: Iterable[Row]) -> None:
        self.base, self.data, self.rows = base, data, list(rows)
        self.study = find_study(base, data)
        self._by_cell = {spm_cell_of(row): row for row in self.rows}

    def of(self, arm: str, places: str = ALL) -> tuple[list[Row], int]:
        """The finished rows of a way of tuning on test images, and how many there will be."""
        cells = measured_cells(self.base, self.data, self.rows, arm, places)
        rows = [row for _, row in self.finished(cells)]
        return rows, self.study.seeds[arm] if places == ALL else 1

    def finished(self, cells: Iterable[SPMCell]) -> list[tuple[SPMCell, Row]]:
        """Those of the cells that have a row, with it."""
        return [(cell, self._by_cell[cell]) for cell in cells if cell in self._by_cell]

    def rate(self, arm: str) -> str | None:
        """The chosen learning rate."""
        return best_rate(self.base, self.data, arm, self.rows)


def _measured(rows: Sequence[Row], metric: str, expected: int) -> str:
    return format_numbers([float(row[metric]) for row in rows], expected)


def _millions(rows: Sequence[Row], group: str) -> str:
    return f'{int(rows[0][group]) / 1e6:.2f}' if rows else '-'


def _minutes(rows: Sequence[Row]) -> str:
    if not rows:
        return '-'
    return f'{statistics.mean(float(row["train_seconds"]) for row in rows) / 60:.1f}'


def _paper(figures: dict[str, float], row: str) -> list[str]:
    if not figures:
        return []
    return [f'*{figures[row]:.2f}*' if row in figures else '']


def ways_text(results: Results) -> str:
    """Ways of tuning: learning rate, trained parameters, metrics on test images, minutes."""
    study = results.study
    paper = spm_figures('4', PAPER_DATA.get(results.data, ''))
    groups = ('backbone', 'prompt', 'head')
    heads = ['tuning', 'learning rate', *(f'{group}, M' for group in groups)]
    heads += [METRIC_NAMES.get(metric, metric) for metric in study.metrics] + ['training, min']
    heads += [f'*paper*: {study.metrics[0]}, {IMAGENET}'] if paper else []
    lines = []
    for arm in study.seeds:
        rows, expected = results.of(arm)
        line = [NAMES[arm], results.rate(arm) or '-']
        line += [_millions(rows, group) for group in groups]
        line += [_measured(rows, metric, expected) for metric in study.metrics]
        lines.append([*line, _minutes(rows), *_paper(paper, arm)])
    seeds = {NAMES[arm]: count for arm, count in study.seeds.items() if count > 1}
    over = f'; mean ± standard deviation of seeds for {" and ".join(seeds)}' if seeds else ''
    text = f'**Ways of tuning**, base `{results.base}` on `{results.data}`{over}.'
    if paper:
        text += ' The column marked *paper* is Table 4, of another backbone and schedule.'
    return f'{text}\n\n{grid(heads, lines)}'


def places_text(results: Results) -> str:
    """SPM by places; the paper's Table 6 beside it."""
    metric, paper = results.study.metrics[0], spm_figures('6', 'ADE20K')
    heads = ['places', 'prompt, M', f'{metric}, seed 0', f'*paper*: ADE20K mIoU, {IMAGENET}']
    lines = []
    for places in (*results.study.places, ALL):
        rows = results.of('spm', places)[0][:1]
        numbers = [_millions(rows, 'prompt'), _measured(rows, metric, 1)]
        lines.append([places, *numbers, *_paper(paper, places)])
    text = f'**Places of prompts**, base `{results.base}` on `{results.data}`, one seed.'
    text += ' The column marked *paper* is Table 6, of other data.'
    return f'{text}\n\n{grid(heads, lines)}'


def rates_text(results: Results) -> str:
    """The numbers by which learning rates were chosen."""
    metric = results.study.metrics[0]
    cells = choosing_cells(results.base, results.data, results.rows)
    scores = {(cell.arm, float(cell.rate)): row for cell, row in results.finished(cells)}
    rates = sorted({float(cell.rate) for cell in cells})
    lines = [
        [
            NAMES[arm],
            *(_measured([scores[arm, r]], metric, 1) if (arm, r) in scores else '-' for r in rates),
        ]
        for arm in results.study.seeds
    ]
    text = (
        f'**Learning rates**, base `{results.base}` on `{results.data}`: {metric} on training '
        f'images that were held out, {results.study.choose_steps} steps, one seed.'
    )
    return f'{text}\n\n{grid(["tuning", *(f"{rate:g}" for rate in rates)], lines)}'


def write_spm_tables(base: str, data: str, folder: Path, into: Path | None = None) -> str:
    """Write the tables of finished cells into `folder`; returns the Markdown.

    Args:
        base, data: of a study.
        folder: with `cells.csv`.
        into: a text file whose marked blocks are replaced; see `put_into`.
    """
    study = find_study(base, data)
    results = Results(base, data, read_spm_rows(folder / 'cells.csv', study))
    parts = {'ways': ways_text} | ({'places': places_text} if study.places else {})
    parts['rates'] = rates_text
    blocks = {}
    for name, render in parts.items():
        text = blocks[f'table spm {name} {base} {data}'] = render(results)
        with atomic_file(folder / f'{name}.md') as stream:
            stream.write(f'{text}\n'.encode())
    if into is not None:
        put_into(into, blocks)
    return '\n\n'.join(blocks.values())


def reproduce_spm(
    base: str, data: str, folder: Path, dry_run: bool, limit: int | None, into: Path | None
) -> None:
    """List the cells, or run those that are missing and write the tables."""
    path = folder / 'cells.csv'
    if dry_run:
        list_spm_cells(base, data, path)
        return
    run_spm_missing(base, data, path, limit)
    print(write_spm_tables(base, data, folder, into))
