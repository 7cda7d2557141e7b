"""The demo's table: what is kept, and what a second call still runs."""

import pytest

from mmprompt.apis.demo import METHODS
from mmprompt.apis.reproduce import command as tables
from mmprompt.apis.reproduce import demo_table
from mmprompt.apis.reproduce.demo_table import COLUMNS, missing_methods, read_demo
from mmprompt.common.errors import UserError


@pytest.fixture
def ran(monkeypatch):
    """Stand-ins for the demo's steps; the names of the methods that were run."""
    names = []

    def run(name, folder):
        assert folder == demo_table.WORK_DIR / name.lower()
        names.append(name)
        if name == 'SemPrompt' and names.count(name) == 1:
            raise UserError('stopped')
        trained = dict(parameters=9639, bytes=40548, seconds=49.96)
        untrained = dict(parameters=0, bytes=0, seconds=None)
        return dict(origin='x', miou=38.5699997) | (untrained if name == 'zero-shot' else trained)

    monkeypatch.setattr(demo_table, 'run_method', run)
    monkeypatch.setattr(demo_table, 'make_data', lambda: names.append('data'))
    return names


def test_a_stopped_demo_continues_and_a_finished_one_runs_nothing(ran, tmp_path, capsys):
    text = tmp_path / 'results.md'
    text.write_text('<!-- begin table demo -->\n<!-- end table demo -->')
    command = ['demo', '--out', str(tmp_path), '--into', str(text)]
    assert tables.main(command) == 2
    assert missing_methods(tmp_path / 'demo.csv') == ['SemPrompt', 'SSPrompt']
    assert tables.main(['demo', '--out', str(tmp_path), '--dry-run']) == 0
    assert '2 to run: SemPrompt, SSPrompt' in capsys.readouterr().out
    assert tables.main(command) == 0
    assert ran == ['data', 'zero-shot', 'SpaPrompt', 'SemPrompt', 'data', 'SemPrompt', 'SSPrompt']
    shown = capsys.readouterr().out
    assert tables.main(command) == 0 and capsys.readouterr().out == shown and len(ran) == 7
    assert '| SSPrompt  | 38.57 | 9,639              | 40 KiB      | 50 s     |' in text.read_text()
    assert text.read_text().splitlines()[2:-2] == (tmp_path / 'demo.md').read_text().splitlines()
    assert list(read_demo(tmp_path / 'demo.csv')) == list(METHODS)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / 'demo.csv'
    path.write_text('a,b\n1,2\n')
    with pytest.raises(UserError, match=f'{COLUMNS[0]},.*found a,b'):
        read_demo(path)
