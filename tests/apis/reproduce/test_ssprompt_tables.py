"""How tables look: on hand-made rows, beside the figures of the papers."""

import re
from pathlib import Path

import pytest

from mmprompt.apis.reproduce.demo_table import demo_text, read_demo
from mmprompt.apis.reproduce.efficiency_table import EFFICIENCY
from mmprompt.apis.reproduce.ssprompt_cells import VARIANTS, cells_of, make_cell
from mmprompt.apis.reproduce.ssprompt_paper import paper_figures
from mmprompt.apis.reproduce.ssprompt_rows import cell_of, make_row, read_rows
from mmprompt.apis.reproduce.ssprompt_suites import SUITES, TABLES
from mmprompt.apis.reproduce.ssprompt_tables import (
    NAMES,
    SUMMARY_COLUMNS,
    Summary,
    caption,
    to_markdown,
    to_summary_rows,
)
from mmprompt.methods.ssprompt.methods import METHODS

DOCS = Path(__file__).resolve().parents[3] / 'docs'
#: Tables of cells, and besides them the demo's and those of efficiency.
BLOCK = re.compile(r'<!-- begin table (\S+) (\S+) (\S+) -->\n\n(.*?)\n\n<!-- end', re.DOTALL)
OTHER = re.compile(r'<!-- begin table (\S+) -->\n\n(.*?)\n\n<!-- end', re.DOTALL)
STREETS = SUITES['nano', 'streets']


def row(table, column, method, seed=0, **metrics):
    cell = make_cell('nano', TABLES[table].columns(STREETS)[column], method, seed)
    return make_row(cell, metrics, parameters=1, train_seconds=1.0, seconds=2.0)


def grid(markdown):
    """Header and rows of a Markdown table, split at the bars."""
    lines = [[part.strip() for part in line.split('|')[1:-1]] for line in markdown.splitlines()]
    return lines[0], lines[2:]


def test_the_whole_of_a_small_table():
    rows = [row('4', 0, 'zero-shot', mIoU=33.27), row('4', 0, 'ssprompt', mIoU=38.55)]
    # One run of the frozen model gives instance and panoptic numbers.
    rows += [row('4', 2, 'zero-shot', PQ=20.46, AP50=19.1)]
    rows += [row('4', 1, 'ssprompt', AP50=20.0), row('4', 2, 'ssprompt', PQ=22.0, AP50=1.0)]
    assert to_markdown(Summary(TABLES['4'], 'nano', STREETS, rows)) == '\n'.join(
        (
            '| method | semantic, mIoU | instance, AP50 | panoptic, PQ | *paper*: semantic, mIoU '
            '| *paper*: instance, AP50 | *paper*: panoptic, PQ |',
            '|---|---|---|---|---|---|---|',
            '| zero-shot (SEEM) | 33.3 | 19.1 | 20.5 | *39.2* | *32.7* | *32.4* |',
            '| SSPrompt | 38.5 | 20.0 | 22.0 | *55.2* | *37.7* | *38.0* |',
        )
    )


def test_the_mean_column_takes_seeds_that_were_measured_everywhere():
    values = {0: (1, 2, 3, 6), 1: (3, 4, 5, 8), 2: (100, 100, 100)}
    rows = [
        row('3', column, 'ssprompt', seed, mIoU=float(value))
        for seed, of_seed in values.items()
        for column, value in enumerate(of_seed)
    ]
    head, body = grid(to_markdown(Summary(TABLES['3'], 'nano', STREETS, rows)))
    assert head[:6] == [
        'method',
        *(f'streets-{c}, mIoU' for c in ('fog', 'night', 'rain', 'snow')),
        'mean, mIoU',
    ]
    ssprompt = body[-1]
    assert ssprompt[4] == '7.0 ± 1.4 (2 of 3 seeds)'
    assert ssprompt[5] == '4.0 ± 1.4 (2 of 3 seeds)'  # of 3 and 5


def test_what_learns_nothing_stands_in_every_column_without_deviation():
    rows = [row('6', 0, 'zero-shot', mIoU=33.27)]
    _, body = grid(to_markdown(Summary(TABLES['6'], 'nano', STREETS, rows)))
    assert body[0][1:5] == ['33.3'] * 4 and body[1][1:5] == ['-'] * 4


def test_seeds_that_a_table_does_not_have_do_not_count():
    rows = [row('8', 0, 'ssprompt', seed, mIoU=30.0 + seed) for seed in range(3)]
    summary = Summary(TABLES['8'], 'nano', STREETS, rows)
    assert summary.by_seed('ssprompt', summary.columns[0]) == {0: 30.0}
    summary = Summary(TABLES['8'], 'nano', STREETS, rows, seeds=(1, 2))
    assert summary.by_seed('ssprompt', summary.columns[0]) == {1: 31.0, 2: 32.0}


@pytest.mark.parametrize(
    ('base', 'data', 'name'),
    [(base, data, name) for (base, data), suite in SUITES.items() for name in suite.tables],
)
def test_no_figure_of_a_paper_stands_in_a_measured_column(name, base, data):
    suite = SUITES[base, data]
    cells = list(cells_of(TABLES[name], base, suite))
    for rows in ([], [make_row(c, dict(mIoU=1.5, aAcc=1.5), 1, 1, 1) for c in cells]):
        summary = Summary(TABLES[name], base, suite, rows)
        head, body = grid(to_markdown(summary))
        paper = [text.startswith('*paper*: ') for text in head]
        data_down = {column.label for column in TABLES[name].columns(suite)}
        assert len(body) == len(data_down if TABLES[name].data_down else TABLES[name].methods)
        for line in body:
            for is_paper, text in zip(paper[1:], line[1:], strict=True):
                allowed = r'(\*[\d.]+\*)?' if is_paper else r'-|1\.5( ± 0\.0)?'
                assert re.fullmatch(allowed, text), (head, line)
        for summed in to_summary_rows(summary):
            assert tuple(summed) == SUMMARY_COLUMNS
            is_paper = summed['source'] == 'paper'
            assert is_paper == summed['model'].startswith('SEEM-')
            assert is_paper or summed['value'] == '1.50'


def test_the_papers_figures_agree_with_one_another():
    """Typing errors: against means, ratios and repetitions that the papers print."""
    for model in ('SEEM-T', 'SEEM-L'):
        by_row = {}
        for figure in paper_figures('3', model):
            by_row.setdefault(figure.row, []).append(figure.value)
        for *conditions, mean in by_row.values():
            assert sum(conditions) / 4 == pytest.approx(mean, abs=0.051)
    nine = {(f.row, f.column, f.metric): f.value for f in paper_figures('9')}
    for column, metric, saved in (
        ('Mapillary', 'ms/image', 21.0),
        ('Mapillary', 'GB', 28.7),
        ('PASCAL Context', 'ms/image', 31.6),
        ('PASCAL Context', 'GB', 42.0),
        ('ADE20K', 'ms/image', 36.0),
        ('ADE20K', 'GB', 53.5),
    ):
        ratio = nine['ssprompt', column, metric] / nine['coop', column, metric]
        assert 100 * (1 - ratio) == pytest.approx(saved, abs=0.11)
    assert {
        (f.row, f.column, f.metric): f.value for f in paper_figures('7')
    }.items() <= nine.items()
    cityscapes = {
        (f.row, f.value)
        for table in ('2', '4', '5', '6', '8', '10')
        for f in paper_figures(table)
        if f.column in ('Cityscapes', 'semantic', '16-shot')
    }
    assert len(cityscapes) == len({name for name, _ in cityscapes})


def test_papers_without_a_table_have_no_figures():
    assert not list(paper_figures('methods')) and not list(paper_figures('4', 'SEEM-L'))


def test_every_row_of_every_table_is_a_method_with_a_name():
    for table in TABLES.values():
        assert set(table.methods) <= (set(METHODS) | set(VARIANTS)) & set(NAMES)
        assert {f.row for f in paper_figures(table.name)} <= set(table.methods)


def test_data_stand_below_one_another_where_metrics_are_many():
    suite = SUITES['nano', 'streets']
    columns = TABLES['conditions'].columns(suite)
    cell = make_cell('nano', columns[0], 'seem', 0)
    snow = next(c for c in columns if c.label == 'streets-snow')
    rows = [
        make_row(cell, dict(mIoU=60.41, PQ=45.22, PQ_th=36.8), 0, 0, 1),
        make_row(make_cell('nano', snow, 'seem', 0), dict(AP50=30.6), 0, 0, 1),
    ]
    summary = Summary(TABLES['conditions'], 'nano', suite, rows)
    head, body = grid(to_markdown(summary))
    assert head == ['data', 'mIoU', 'PQ', 'PQ-th', 'PQ-st', 'SQ', 'RQ', 'AP', 'AP50']
    assert body[0] == ['streets-clear', '60.4', '45.2', '36.8', *['-'] * 5]
    assert body[-1] == ['streets-snow', *['-'] * 7, '30.6'] and len(body) == 5
    assert 'seed' not in caption(summary)
    assert [row['metric'] for row in to_summary_rows(summary)] == ['mIoU', 'PQ', 'PQ_th', 'AP50']


def test_what_is_frozen_is_called_by_its_name():
    for (base, name), text in {('nano', '5'): '(SEEM)', ('mobile-sam', 'sam'): 'zero-shot'}.items():
        suite = SUITES[base, 'streets' if base == 'nano' else 'camvid']
        _, body = grid(to_markdown(Summary(TABLES[name], base, suite, [])))
        assert body[0][0].endswith(text)


def _folder(base, data):
    return DOCS / 'results' / f'{base}_{data}'


def _stem(name):
    return f'table-{name}' if name.isdecimal() else name


@pytest.mark.parametrize('text', [DOCS / 'results.md', DOCS.parent / 'README.md'])
def test_the_tables_of_the_documentation_are_those_of_the_cells(text):
    whole = text.read_text()
    blocks = BLOCK.findall(whole)
    assert blocks
    for name, base, data, block in blocks:
        rows = read_rows(_folder(base, data) / 'cells.csv')
        summary = Summary(TABLES[name], base, SUITES[base, data], rows)
        assert block == f'{caption(summary)}\n\n{to_markdown(summary)}', (name, base, data)
        assert (_folder(base, data) / f'{_stem(name)}.md').read_text() == f'{block}\n'
    others = dict(OTHER.findall(whole))
    for name, block in others.items():
        kept = DOCS / 'results' / f'{_stem(name)}.md'
        assert kept.read_text() == f'{block}\n', name
    assert others['demo'] == demo_text(read_demo(DOCS / 'results' / 'demo.csv'))


def test_every_table_of_every_measured_suite_is_shown_and_whole():
    whole = (DOCS / 'results.md').read_text()
    shown = {(name, base, data) for name, base, data, _ in BLOCK.findall(whole)}
    measured = [key for key in SUITES if (_folder(*key) / 'cells.csv').is_file()]
    assert shown == {(name, *key) for key in measured for name in SUITES[key].tables}
    assert set(dict(OTHER.findall(whole))) >= {'demo', *EFFICIENCY}
    for base, data in measured:
        rows = {cell_of(row) for row in read_rows(_folder(base, data) / 'cells.csv')}
        suite = SUITES[base, data]
        wanted = {c for name in suite.tables for c in cells_of(TABLES[name], base, suite)}
        assert rows == wanted, (base, data)
        files = {path.stem for path in _folder(base, data).iterdir()}
        assert files == {'cells', *(_stem(name) for name in suite.tables)}


def test_no_table_of_ssprompt_is_written_by_hand():
    """Whoever types results into docs/results.md that no cell has is found here."""
    text = (DOCS / 'results.md').read_text()
    sections = [part for part in text.split('\n## ') if not part.startswith(('SPM', 'SAM-CP'))]
    outside = re.sub(r'<!-- begin table .*?<!-- end table', '', ''.join(sections), flags=re.DOTALL)
    heads = re.findall(r'(?m)^\|(.*)\|\n\|---', outside)
    assert [head.split('|')[0].strip() for head in heads] == ['here']  # which data stand for which
