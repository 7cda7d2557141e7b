"""The demo redoes what came from something else, and nothing more."""

import json
from pathlib import Path

import pytest
import torch

from mmprompt.apis import demo
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile


@pytest.fixture
def commands(monkeypatch):
    """Stand-ins for the command lines, which leave the files that these leave."""
    calls = []

    def run(title, script, *arguments):
        calls.append(script)
        if script == 'train.py':
            folder = Path(arguments[arguments.index('--work-dir') + 1])
            PromptFile({'offset': torch.zeros(3, 4)}, 'SSPrompt', ('a',), 'base').save(
                folder / 'prompt.safetensors'
            )
        else:
            out = Path(arguments[arguments.index('--out') + 1])
            out.write_text(json.dumps(dict(metrics=dict(mIoU=40.0))))
        return 2.0

    monkeypatch.setattr(demo, '_run', run)
    monkeypatch.setattr(demo, 'origin', lambda name: 'first')
    return calls


def test_a_second_call_runs_nothing_and_reports_the_same(commands, tmp_path):
    first = demo.run_method('SSPrompt', tmp_path / 'ssprompt')
    size = (tmp_path / 'ssprompt' / 'prompt.safetensors').stat().st_size
    assert first == dict(origin='first', miou=40.0, parameters=12, bytes=size, seconds=2.0)
    assert demo.run_method('SSPrompt', tmp_path / 'ssprompt') == first
    assert commands == ['train.py', 'test.py']


def test_another_origin_starts_anew(commands, tmp_path, monkeypatch):
    folder = tmp_path / 'ssprompt'
    demo.run_method('SSPrompt', folder)
    (folder / 'iter_100.pth').write_bytes(b'of the old config')
    monkeypatch.setattr(demo, 'origin', lambda name: 'second')
    assert demo.run_method('SSPrompt', folder)['origin'] == 'second'
    assert not (folder / 'iter_100.pth').exists()
    assert commands == ['train.py', 'test.py'] * 2


def test_an_interrupted_training_is_continued_with_its_checkpoints(commands, tmp_path, monkeypatch):
    folder = tmp_path / 'ssprompt'
    whole = demo._run

    def stop(title, script, *arguments):
        (folder / 'iter_100.pth').write_bytes(b'half way')
        raise UserError('stopped')

    monkeypatch.setattr(demo, '_run', stop)
    with pytest.raises(UserError):
        demo.run_method('SSPrompt', folder)
    monkeypatch.setattr(demo, '_run', whole)
    demo.run_method('SSPrompt', folder)
    assert (folder / 'iter_100.pth').exists()


def test_zero_shot_trains_nothing(commands, tmp_path):
    result = demo.run_method('zero-shot', tmp_path / 'zero-shot')
    assert (result['parameters'], result['bytes'], result['seconds']) == (0, 0, None)
    assert commands == ['test.py']


def test_origin_follows_config_data_manifest_and_base(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, 'DATA', tmp_path)
    monkeypatch.setattr(demo, 'MANIFEST', tmp_path / 'manifest.json')
    (tmp_path / 'streets.json').write_text('{}')
    demo.MANIFEST.write_text('{"seed": 0}')
    first = demo.origin('SSPrompt')
    assert demo.origin('SSPrompt') == first != demo.origin('SpaPrompt')
    demo.MANIFEST.write_text('{"seed": 1}')
    second = demo.origin('SSPrompt')
    (tmp_path / 'streets.json').write_text('{"seed": 1}')
    assert len({first, second, demo.origin('SSPrompt')}) == 3
