"""Prompt files that the tests of predictions share, and a user's folder to learn from."""

import pytest
from prompt_files import FEW, write_prompt, write_stirred_base
from workplace import Workplace


@pytest.fixture(scope='session')
def toy_prompts(tmp_path_factory):
    """(base, {'streets': both prompts on 19 classes, 'few': class embeddings of 3})."""
    folder = tmp_path_factory.mktemp('toy_prompts')
    base = write_stirred_base(folder / 'base.safetensors')
    return base, dict(
        streets=write_prompt(base, folder / 'streets.safetensors'),
        few=write_prompt(base, folder / 'few.safetensors', FEW, 'SemPrompt', seed=1),
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    return Workplace(tmp_path)
