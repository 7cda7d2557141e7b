"""Grids of cells: what runs, what is kept, and how it is summed up."""

import copy
import statistics

import pytest
import torch

from mmprompt.apis import tables
from mmprompt.apis.tables import METHODS, TABLES, Cell, Table
from mmprompt.common.audit import trained_parameters
from mmprompt.registry import MODELS

# 100 queries and 19 classes of 80 numbers, with or without a weight each.
PARAMETERS = {
    'zero-shot': 0,
    'SpaPrompt, embedding only': 100 * 80,
    'SpaPrompt': 100 * 81,
    'SemPrompt, embedding only': 19 * 80,
    'SemPrompt': 19 * 81,
    'SSPrompt': 100 * 81 + 19 * 81,
}
SMALL = Table(
    configs={'fog': 'configs/ssprompt/nano_streets-fog_16shot.py'},
    shots=(4, 16),
    seeds=(0, 1),
    methods=('zero-shot', 'SSPrompt'),
)


def fake_row(table, cell):
    miou = 10.0 * cell.seed + cell.shots
    return dict(
        data=cell.data, method=cell.method, shots=cell.shots, seed=cell.seed, miou=miou,
        parameters=1, seconds=0.1,
    )  # fmt: skip


def test_zero_shot_runs_once_and_every_other_cell_per_seed_and_shots():
    cells = list(SMALL.cells())
    assert cells[0] == Cell('fog', 'zero-shot', 0, 0)
    learned = {Cell('fog', 'SSPrompt', k, s) for k in (4, 16) for s in (0, 1)}
    assert set(cells[1:]) == learned and len(cells) == 5


@pytest.mark.parametrize('method', METHODS)
def test_a_cell_trains_what_its_method_says(method):
    before = copy.deepcopy(METHODS)
    cfg = tables.cell_config(SMALL, Cell('fog', method, 4, 7), 'nowhere')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(trained_parameters(model).values()) == PARAMETERS[method]
    few_shot = cfg.train_dataloader.dataset
    assert (few_shot.k, few_shot.seed, cfg.randomness.seed) == (4, 7, 7)
    assert 'manifest' not in few_shot
    assert METHODS == before


def test_every_config_of_every_table_is_there():
    for table in TABLES.values():
        for data in table.configs:
            cfg = tables.cell_config(table, Cell(data, 'SSPrompt', 16, 0), 'nowhere')
            assert cfg.train_dataloader.dataset.k == 16 and cfg.work_dir == 'nowhere'


def test_a_stopped_table_continues_with_the_missing_cells(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, 'small', SMALL)
    ran = []

    def stop_after_two(table, cell):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(cell)
        return fake_row(table, cell)

    monkeypatch.setattr(tables, 'run_cell', stop_after_two)
    out = str(tmp_path / 'small.csv')
    assert tables.main(['small', '--out', out]) == 130
    monkeypatch.setattr(
        tables, 'run_cell', lambda table, cell: ran.append(cell) or fake_row(table, cell)
    )
    assert tables.main(['small', '--out', out]) == 0
    assert ran == list(SMALL.cells())
    assert '| SSPrompt | 9.0 ± 7.1 | 21.0 ± 7.1 |' in capsys.readouterr().out


def test_the_summary_is_mean_and_standard_deviation_over_seeds():
    rows = [fake_row(None, cell) for cell in SMALL.cells()]
    text = tables.format_rows(rows)
    four = [row['miou'] for row in rows if row['shots'] == 4]
    assert f'{statistics.mean(four):.1f} ± {statistics.stdev(four):.1f}' in text
    assert '| zero-shot | 0.0 | 0.0 |' in text


def test_a_foreign_csv_is_refused_and_left_alone(tmp_path, capsys):
    path = tmp_path / 'other.csv'
    path.write_text('a,b\n1,2\n')
    assert tables.main(['streets', '--out', str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_text() == 'a,b\n1,2\n'


def test_a_dry_run_lists_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, 'small', SMALL)
    out = tmp_path / 'small.csv'
    assert tables.main(['small', '--out', str(out), '--dry-run']) == 0
    assert capsys.readouterr().out.count('Cell(') == 5 and not out.exists()
