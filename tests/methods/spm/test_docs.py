"""What docs/spm.md and the README tell the reader to type can be used as it stands."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
from drop_in import build
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmprompt.apis.cli import OptionsAction, apply_options
from mmprompt.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]


def model_of(document: str) -> dict:
    """The model of the one Python snippet that defines it."""
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / document).read_text(), re.DOTALL)
    (snippet,) = [text for text in snippets if "type='SPMSegmentor'" in text]
    names: dict = {}
    exec(snippet, names)
    return names['model']


@pytest.mark.parametrize('scope', ['mmprompt', 'mmseg'])
def test_the_snippet_builds(scope):
    with torch.device('meta'):
        model = build(model_of('docs/spm.md'), scope)
    assert len(model.backbone.matchers) == 5
    assert model.backbone.backbone.init_cfg['checkpoint'] == 'open-mmlab://resnet50_v1c'


def test_the_short_snippet_is_its_backbone():
    short, whole = (model_of(name)['backbone'] for name in ('README.md', 'docs/spm.md'))
    assert short == {k: v for k, v in whole.items() if k != 'class_prior'}


def test_the_command_of_table_6_shows_the_figure_of_its_row():
    text = (ROOT / 'docs/spm.md').read_text().split('A row of Table 6')[1]
    words = shlex.split(text.split('```')[1].replace('\\\n', ' '))
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    cfg = Config.fromfile(ROOT / words[2])
    apply_options(cfg, parser.parse_args(words[3:]).cfg_options)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmprompt'):
        shown = MODELS.build(cfg.model).describe_parameters()
    assert 'prompt     7.06 M (7,056,068, paper 3.69 M)' in shown
