"""One line per run, whatever the metrics are called and whichever are missing."""

import pytest

from mmprompt.apis.task_table import has_tasks, number, task_table
from mmprompt.apis.test import main


def test_a_line_per_run_with_every_column_in_order():
    whole = dict(PQ=47.04, PQ_th=51.26, PQ_st=40, SQ=80.5, RQ=57.0, AP_det=45.8, AP=41.4, AP50=62.0)
    runs = {
        'samcp': whole | dict(mIoU=54.2, AP75=3.0),
        'mine': {'panoptic/PQ': 1, 'AP': float('nan')},
    }
    lines = task_table(runs).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert cells[0] == 'run PQ PQ-th PQ-st SQ RQ AP-det AP AP50 mIoU'.split()
    assert cells[2] == 'samcp 47.0 51.3 40.0 80.5 57.0 45.8 41.4 62.0 54.2'.split()
    assert cells[3] == ['mine', '1.0', *'--------']


@pytest.mark.parametrize(
    ('metrics', 'several'),
    [(dict(PQ=1, mIoU=2), True), ({'a/AP': 1, 'PQ': 2}, True), (dict(mIoU=1, mAcc=2), False)],
)
def test_it_is_worth_a_table_with_two_tasks(metrics, several):
    assert has_tasks(metrics) is several


def test_undefined_is_a_dash():
    assert [number(v) for v in (None, float('nan'), 0, 99.96)] == ['-', '-', '0.0', '100.0']


def test_measuring_two_tasks_prints_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'panoptic.py'
    path.write_text("work_dir = 'unused'\n")
    for metrics, printed in ((dict(PQ=50.0, mIoU=60.0), True), (dict(mIoU=60.0, mAcc=70.0), False)):
        monkeypatch.setattr('mmprompt.apis.test.test', lambda *_, metrics=metrics: metrics)
        assert main([str(path)]) == 0
        said = capsys.readouterr().out
        assert 'mIoU: 60.0' in said and ('| panoptic | 50.0 |' in said) is printed
