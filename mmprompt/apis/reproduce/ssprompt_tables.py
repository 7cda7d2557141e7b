"""SSPrompt's tables as Markdown and CSV: what was measured, and beside it the paper's numbers."""

import functools
import statistics
from collections.abc import Iterable, Sequence

from mmprompt.apis.csv_rows import Row
from mmprompt.apis.markdown import format_numbers, grid
from mmprompt.apis.reproduce.ssprompt_cells import UNTRAINED, make_cell
from mmprompt.apis.reproduce.ssprompt_paper import PaperFigure, paper_figures
from mmprompt.apis.reproduce.ssprompt_rows import METRICS, cell_of
from mmprompt.apis.reproduce.ssprompt_suites import Column, Suite, Table

NAMES = {
    'zero-shot': 'zero-shot (SEEM)',
    'zero-shot-bare': 'zero-shot, no templates',
    'zero-shot-grid': 'zero-shot, grid of points',
    'coop': 'CoOp',
    'coop-m4': 'CoOp, "a photo of a"',
    'coop-csc': 'CoOp, per class',
    'locn': 'LOCN',
    'vspl': 'VSPL',
    'spaprompt': 'SpaPrompt',
    'spaprompt-embedding-only': 'SpaPrompt, embedding only',
    'semprompt': 'SemPrompt',
    'semprompt-embedding-only': 'SemPrompt, embedding only',
    'ssprompt': 'SSPrompt',
    'ssprompt-embedding-only': 'SSPrompt, embedding only',
    'ssprompt-query-pos': 'SSPrompt, `query_pos` (B)',
    'ssprompt-both': 'SSPrompt, `both` (C)',
    'ssprompt-grid': 'SSPrompt, `grid` (E)',
    'ssprompt-published': "SSPrompt, the paper's recipe",
    'coop-native': "CoOp, its paper's recipe",
    'seem': 'SEEM',
    'ssprompt-cache': 'SSPrompt, feature cache',
    'coop-77': 'CoOp, texts of 77 tokens',
    'locn-77': 'LOCN, texts of 77 tokens',
    'head': 'head tuning',
    'full': 'full tuning',
}
SUMMARY_COLUMNS = (
    'table', 'source', 'model', 'method', 'column', 'metric', 'value', 'std', 'seeds',
)  # fmt: skip
MEAN = 'mean'
METRIC_NAMES = {metric: metric.replace('_', '-') for metric in METRICS}


class Summary:
    """Means over the seeds of a table, of the rows that are there.

    Args:
        table: its cells say which rows count.
        base, suite: whose.
        rows: finished cells, others among them.
        seeds: instead of the table's own.
    """

    def __init__(
        self,
        table: Table,
        base: str,
        suite: Suite,
        rows: Iterable[Row],
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.table, self.base = table, base
        self.columns = table.columns(suite)
        self.seeds = tuple(range(table.seeds) if seeds is None else seeds)
        self._rows = {cell_of(row): row for row in rows}

    def by_seed(self, method: str, column: Column) -> dict[int, float]:
        """The measured numbers of a place by seed; what learns nothing has one, of seed 0."""
        found = {}
        for seed in (0,) if method in UNTRAINED else self.seeds:
            row = self._rows.get(make_cell(self.base, column, method, seed))
            if row is not None and row[column.metric]:
                found[seed] = float(row[column.metric])
        return found

    def places(self) -> list[tuple[str, Column, list[float]]]:
        """(method, column, numbers by seed) of the table, a column of means at the end."""
        found = []
        for method in self.table.methods:
            columns = [self.by_seed(method, column) for column in self.columns]
            found += [
                (method, column, list(numbers.values()))
                for column, numbers in zip(self.columns, columns)
            ]
            if self.has_mean:
                # Of each seed that was measured everywhere.
                whole = set.intersection(*map(set, columns))
                means = [statistics.mean(c[seed] for c in columns) for seed in sorted(whole)]
                found.append((method, self.mean, means))
        return found

    @property
    def has_mean(self) -> bool:
        """Whether the columns are several data sets of one metric, as in Table 3."""
        return len({column.data for column in self.columns}) > 1 and not self.table.data_down

    @property
    def mean(self) -> Column:
        """The column of means."""
        return Column(MEAN, '', metric=self.columns[0].metric)

    def numbers(self, method: str, column: Column) -> str:
        """A place as it is printed; '-' if nothing is there."""
        expected = 1 if method in UNTRAINED else len(self.seeds)
        return format_numbers(self._by_place[method, column], expected)

    @functools.cached_property
    def _by_place(self) -> dict[tuple[str, Column], list[float]]:
        return {(method, column): numbers for method, column, numbers in self.places()}


def paper_model(base: str) -> str:
    """The model of the paper that a base stands beside."""
    return 'SEEM-L' if base in ('focal-l', 'davit-l') else 'SEEM-T'


def to_markdown(summary: Summary) -> str:
    """Methods down; measured columns, then the paper's, each marked so."""
    if summary.table.data_down:
        return _data_down(summary)
    paper = list(paper_figures(summary.table.name, paper_model(summary.base)))
    paper_columns = list(dict.fromkeys((f.column, f.metric) for f in paper))
    columns = [*summary.columns, *([summary.mean] if summary.has_mean else [])]
    heads = ['method', *(f'{column.label}, {METRIC_NAMES[column.metric]}' for column in columns)]
    heads += [f'*paper*: {column}, {metric}' for column, metric in paper_columns]
    rows = []
    for method in summary.table.methods:
        cells = [summary.numbers(method, column) for column in columns]
        cells += [paper_text(paper, method, *column) for column in paper_columns]
        rows.append([method_name(method, summary.base), *cells])
    return grid(heads, rows)


def _data_down(summary: Summary) -> str:
    """Data down, metrics across."""
    (method,) = summary.table.methods
    by_label: dict[str, list[Column]] = {}
    for column in summary.columns:
        by_label.setdefault(column.label, []).append(column)
    heads = ['data', *(METRIC_NAMES[m] for m in dict.fromkeys(c.metric for c in summary.columns))]
    rows = [
        [label, *(summary.numbers(method, column) for column in columns)]
        for label, columns in by_label.items()
    ]
    return grid(heads, rows)


def method_name(method: str, base: str) -> str:
    """A row as it is printed: what is frozen is said to be SEEM, where it is."""
    return 'zero-shot' if (method, base) == ('zero-shot', 'mobile-sam') else NAMES[method]


def paper_text(paper: list[PaperFigure], method: str, column: str, metric: str) -> str:
    """A figure of a paper as it stands in a column of its own; empty if there is none."""
    found = [f for f in paper if (f.row, f.column, f.metric) == (method, column, metric)]
    digits = 2 if metric == 'GB' else 1  # as printed
    return f'*{found[0].value:.{digits}f}*' if found else ''


def caption(summary: Summary) -> str:
    """One line above a table: what the measured and the paper's columns are."""
    seeds = len(summary.seeds)
    over = f'; mean ± standard deviation of {seeds} seeds' if seeds > 1 else '; one seed'
    if set(summary.table.methods) <= set(UNTRAINED):
        over = ''
    name, title = summary.table.name, summary.table.title
    title = f'Table {name}, {title}' if name.isdecimal() else title[0].upper() + title[1:]
    text = f'**{title}**, base `{summary.base}`{over}.'
    if any(paper_figures(summary.table.name, paper_model(summary.base))):
        model = paper_model(summary.base)
        text += f" Columns marked *paper* are the paper's own ({model}, its data): not measured."
    return text


def to_summary_rows(summary: Summary) -> list[dict]:
    """Rows with `SUMMARY_COLUMNS`; `source` is 'measured' or 'paper'."""
    rows = []
    for method, column, numbers in summary.places():
        if numbers:
            row = dict(table=summary.table.name, source='measured', model=summary.base)
            row |= dict(method=method, column=column.label, metric=column.metric)
            row |= dict(value=f'{statistics.mean(numbers):.2f}', std='', seeds=len(numbers))
            if len(numbers) > 1:
                row['std'] = f'{statistics.stdev(numbers):.2f}'
            rows.append(row)
    for figure in paper_figures(summary.table.name, paper_model(summary.base)):
        row = dict(table=figure.table, source='paper', model=figure.model, method=figure.row)
        row |= dict(column=figure.column, metric=figure.metric)
        rows.append(row | dict(value=f'{figure.value:g}', std='', seeds=''))
    return rows
