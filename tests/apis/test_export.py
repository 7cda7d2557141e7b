"""What the export takes, and how its files are compared with the model."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from prompted import prompted_segmentor
from torch import nn

from mmprompt.apis.export import compare, export, exports_programs, load_segmentor
from mmprompt.common.errors import UserError


@pytest.fixture
def config(tmp_path):
    """Path of a toy config, whose frozen backbone has weights."""
    path = tmp_path / 'config.py'
    model = prompted_segmentor(tmp_path)
    Config(dict(default_scope='mmprompt', model=model), format_python_code=False).dump(path)
    return str(path)


def saved(config, path, change=lambda state: None, **entries) -> str:
    """A training checkpoint, without what is frozen and after a change."""
    torch.manual_seed(3)
    model = load_segmentor(config, None)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith('backbone.backbone')}
    for value in state.values():
        if value.is_floating_point():
            value += torch.rand_like(value)
    change(state)
    record = dict(base_fingerprint=model.base_fingerprint)
    torch.save(dict(dict(state_dict=state, mmprompt=record), **entries), path)
    return str(path)


def test_a_checkpoint_brings_all_that_was_trained(config, tmp_path):
    path = saved(config, tmp_path / 'iter_1.pth')
    expected = torch.load(path)['state_dict']
    found = load_segmentor(config, path).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda state: state.clear(), r'without \d+ such as backbone\.class_prior'),
        (lambda state: state.pop('decode_head.conv_seg.bias'), r'without 1 such as decode_head'),
        (lambda state: state.update(nothing=torch.ones(1)), r'with 1 such as nothing'),
        (lambda state: state.update({'decode_head.conv_seg.bias': torch.ones(2)}), 'size mismatch'),
    ],
)
def test_a_checkpoint_that_is_not_of_the_config(change, message, config, tmp_path):
    path = saved(config, tmp_path / 'iter_1.pth', change)
    with pytest.raises(UserError, match=message):
        load_segmentor(config, path)


def test_a_checkpoint_that_was_trained_with_other_options(config, tmp_path):
    path = saved(config, tmp_path / 'iter_1.pth')
    with pytest.raises(UserError, match=r'with \d+ such as backbone.*model\.backbone\.tuning'):
        load_segmentor(config, path, {'model.backbone.tuning': 'head'})


def test_a_checkpoint_of_another_base(config, tmp_path):
    path = saved(config, tmp_path / 'iter_1.pth', mmprompt=dict(base_fingerprint='b' * 64))
    with pytest.raises(UserError, match=f'fingerprint {"b" * 64}'):
        load_segmentor(config, path)


class Scaled(nn.Module):
    """Pictures as logits, one and several times another number."""

    def __init__(self, one: float = 1.0, more: float = 1.0) -> None:
        super().__init__()
        self.one, self.more = one, more

    def forward(self, images):
        return images * (self.one if len(images) == 1 else self.more)


def test_a_file_that_differs_from_its_model(monkeypatch):
    """It gives the pictures, with values to 255; the bound is absolute."""
    monkeypatch.setattr('mmprompt.apis.export._run', lambda path, images: images)
    path = Path('model.onnx')
    assert compare(Scaled(), path, (32, 64), dynamic=True) == 0
    with pytest.raises(UserError, match=r'to 0\.0001, found .* on images \(1, 3, 32, 64\)'):
        compare(Scaled(one=1 + 1e-5), path, (32, 64))
    assert compare(Scaled(more=2), path, (32, 64)) == 0
    with pytest.raises(UserError, match=r'found .* on images \(2, 3, 64, 128\)'):
        compare(Scaled(more=2), path, (32, 64), dynamic=True)
    monkeypatch.setattr('mmprompt.apis.export._run', lambda path, images: images[:1])
    with pytest.raises(UserError, match=r'expected logits \(2, 3, 64, 128\) .* found \(1, 3, 64'):
        compare(Scaled(), path, (32, 64), dynamic=True)


def test_a_file_that_fixes_a_size(tmp_path):
    for package in ('onnx', 'onnxruntime', *(['onnxscript'] if exports_programs() else [])):
        pytest.importorskip(package)
    path = export(Scaled().eval(), tmp_path / 'model.onnx', (32, 64))
    with pytest.raises(UserError, match=r'takes images \(2, 3, 64, 128\)'):
        compare(Scaled(), path, (32, 64), dynamic=True)
