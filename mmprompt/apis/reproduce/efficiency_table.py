"""Tables 7 and 9, training efficiency: figures of benchmarks/ssprompt_efficiency.py as a table."""

from collections.abc import Mapping
from pathlib import Path

from mmprompt.apis.csv_rows import read_csv
from mmprompt.apis.markdown import grid
from mmprompt.apis.reproduce.ssprompt_paper import paper_figures
from mmprompt.apis.reproduce.ssprompt_tables import NAMES, paper_text
from mmprompt.common.errors import UserError

COMMAND = 'python benchmarks/ssprompt_efficiency.py --out'
NEEDED = ('setting', 'method', 'ms per image', 'weights (MB)', 'step (MB)')
_LABELS = {'mapillary': 'Mapillary', 'pascal-context': 'PASCAL Context', 'ade20k': 'ADE20K'}
#: Settings of a table. Table 7 is the last part of Table 9.
EFFICIENCY = {'7': ('ade20k',), '9': tuple(_LABELS)}
#: Beside whom the papers' figures stand: their CoOp and LOCN pad texts to 77 tokens.
_PAPER_ROWS = {'coop-77': 'coop', 'locn-77': 'locn', 'ssprompt': 'ssprompt'}
Rates = dict[tuple[str, str, str], float]


def read_efficiency(path: Path) -> Rates:
    """ms per image and GB (weights, and what a step adds at its peak) by method, column, metric.

    Raises:
        UserError: there is no such file, or it has other columns.
    """
    if not path.is_file():
        raise UserError(
            f'{path}: expected measured times, found no such file. Measure: {COMMAND} '
            f'{path.with_suffix("")}'
        )
    mend = f'Measure again: {COMMAND} {path.with_suffix("")}'
    rows = read_csv(path, NEEDED, others=True, mend=mend)
    rates: Rates = {}
    for row in rows:
        column = _LABELS.get(row['setting'], row['setting'])
        memory = float(row['weights (MB)']) + float(row['step (MB)'])
        rates[row['method'], column, 'ms/image'] = float(row['ms per image'])
        rates[row['method'], column, 'GB'] = memory / 1000
    return rates


def efficiency_markdown(table: str, rates: Mapping) -> str:
    """Methods down; measured columns, then the paper's, each marked so."""
    columns = [(_LABELS[s], metric) for s in EFFICIENCY[table] for metric in ('ms/image', 'GB')]
    paper = list(paper_figures(table))
    heads = ['method', *(f'{column}, {metric}' for column, metric in columns)]
    heads += [f'*paper*: {column}, {metric}' for column, metric in columns]
    rows = []
    for method in dict.fromkeys(method for method, _, _ in rates):
        cells = []
        for column, metric in columns:
            value = rates.get((method, column, metric))
            digits = 0 if metric == 'ms/image' else 2
            cells.append('-' if value is None else f'{value:.{digits}f}')
        row = _PAPER_ROWS.get(method, '')
        cells += [paper_text(paper, row, column, metric) for column, metric in columns]
        rows.append([NAMES.get(method, method), *cells])
    return grid(heads, rows)


def efficiency_rows(table: str, rates: Mapping) -> list[dict]:
    """Rows with `table_text.SUMMARY_COLUMNS`; `source` is 'measured' or 'paper'."""
    wanted = {_LABELS[s] for s in EFFICIENCY[table]}
    keys = ('table', 'source', 'model', 'method', 'column', 'metric', 'value')
    values = [
        (table, 'measured', 'focal-t', method, column, metric, f'{value:g}')
        for (method, column, metric), value in rates.items()
        if column in wanted
    ]
    values += [
        (table, 'paper', f.model, f.row, f.column, f.metric, f'{f.value:g}')
        for f in paper_figures(table)
    ]
    return [dict(zip(keys, value)) | dict(std='', seeds='') for value in values]


def efficiency_caption(table: str) -> str:
    """One line above the table."""
    return (
        f'**Table {table}, training efficiency**, Focal-T, measured by '
        f'`benchmarks/ssprompt_efficiency.py` on its own machine. Columns marked *paper* are the '
        f"paper's own (SEEM-T, its machine): not measured."
    )
