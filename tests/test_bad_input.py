"""What bad input gets: a sentence that names it, exit status 2, and an untouched output folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny  # noqa: F401  (makes Runners start fast)
from bad_inputs import CASES, build

from mmprompt.apis import test, train
from mmprompt.apis.prepare import few_shot
from mmprompt.common.prompt_file import PromptFile

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {'train': train.main, 'test': test.main, 'split': few_shot.main}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp('original')
    build(folder)
    return folder


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A copy of the original in which a case may spoil things; the config says so by its text."""
    for path in original.rglob('*'):
        target = tmp_path / path.relative_to(original)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.read_bytes())
    text = (tmp_path / 'config.py').read_text()
    (tmp_path / 'config.py').write_text(text.replace(str(original), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder):
    return {p.relative_to(folder): p.is_file() and p.read_bytes() for p in folder.rglob('*')}


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.__name__)
def test_bad_input(case, place, capsys):
    command, arguments, words = case(place)
    if command != 'split':
        arguments = [*arguments, '--work-dir', 'out']
    before = snapshot(place / 'out')
    code = COMMANDS[command](['config.py', *arguments])
    errors = [s for s in capsys.readouterr().err.splitlines() if s.startswith('error: ')]
    assert code == 2 and len(errors) == 1
    assert [w for w in words if w not in errors[0]] == [], errors[0]
    assert 'Traceback' not in errors[0] and 'UserError' not in errors[0]
    assert snapshot(place / 'out') == before
    assert not (place / 'executed').exists()


def test_a_missing_config_in_a_process_of_its_own(place):
    before = snapshot(place)
    run = subprocess.run(
        [sys.executable, str(ROOT / 'tools/train.py'), 'confg.py', '--work-dir', 'new'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 2 and snapshot(place) == before
    assert 'error: confg.py: expected a config file' in run.stderr
    assert 'Traceback' not in run.stderr


def test_good_input_passes(place, capsys):
    """The place itself is sound: what the cases report is what they spoiled."""
    (place / 'out' / 'prompt.safetensors').unlink()
    assert train.main(['config.py', '--work-dir', 'out']) == 0
    assert PromptFile.load('out/prompt.safetensors').recipe['iterations'] == 2
    arguments = ['config.py', 'out/prompt.safetensors', '--work-dir', 'out', '--out', 'm.json']
    assert test.main(arguments) == 0
    assert few_shot.main(['config.py', '--k', '2', '--out', 'm2.json']) == 0
    assert (place / 'm.json').is_file() and (place / 'm2.json').is_file()
