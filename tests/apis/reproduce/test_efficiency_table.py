"""Tables 7 and 9 from a hand-made file of measured times."""

import csv

import pytest

from mmprompt.apis.reproduce import command as tables
from mmprompt.apis.reproduce.ssprompt_paper import paper_figures

TEXT = """setting,classes,method,ms per image,weights (MB),step (MB)
ade20k,150,coop-77,2000,400,1600
ade20k,150,locn-77,2100,400,1700
ade20k,150,locn,500,400,300
ade20k,150,ssprompt,1000,150,600
ade20k,150,ssprompt-cache,100,150,300
mapillary,19,ssprompt,900,150,610
"""


@pytest.fixture
def measured(tmp_path):
    path = tmp_path / 'times.csv'
    path.write_text(TEXT)
    return path


def test_the_whole_of_table_7(measured, tmp_path, capsys):
    command = ['7', '--measured', str(measured), '--out', str(tmp_path)]
    assert tables.main(command) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[2:] == [
        '| method | ADE20K, ms/image | ADE20K, GB | *paper*: ADE20K, ms/image '
        '| *paper*: ADE20K, GB |',
        '|---|---|---|---|---|',
        '| CoOp, texts of 77 tokens | 2000 | 2.00 | *87.5* | *8.22* |',
        '| LOCN, texts of 77 tokens | 2100 | 2.10 | *89.5* | *8.22* |',
        '| LOCN | 500 | 0.70 |  |  |',
        '| SSPrompt | 1000 | 0.75 | *56.0* | *3.82* |',
        '| SSPrompt, feature cache | 100 | 0.45 |  |  |',
    ]
    assert (tmp_path / 'table-7.md').read_text() == shown
    with (tmp_path / 'table-7.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r['value'] for r in rows if r['source'] == 'measured'][:2] == ['2000', '2']
    paper = [float(r['value']) for r in rows if r['source'] == 'paper']
    assert paper == [f.value for f in paper_figures('7')]


def test_what_was_not_measured_is_a_dash(measured, tmp_path, capsys):
    assert tables.main(['9', '--measured', str(measured), '--out', str(tmp_path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| SSPrompt')]
    assert rows[0].split(' | ')[1:7] == ['900', '0.76', '-', '-', '1000', '0.75']


def test_a_missing_or_foreign_file_names_the_command(measured, tmp_path, capsys):
    assert tables.main(['7', '--measured', str(tmp_path / 'none.csv')]) == 2
    assert f'ssprompt_efficiency.py --out {tmp_path}/none' in capsys.readouterr().err
    measured.write_text('setting,method\n')
    assert tables.main(['7', '--measured', str(measured)]) == 2
    assert 'step (MB), found setting,method. Measure again: python' in capsys.readouterr().err


def test_a_dry_run_tells_whether_it_was_measured(measured, tmp_path, capsys):
    for path, state in ((measured, 'done'), (tmp_path / 'none.csv', 'missing')):
        assert tables.main(['9', '--measured', str(path), '--dry-run']) == 0
        assert capsys.readouterr().out.startswith(f'{state:<8}python benchmarks/')
