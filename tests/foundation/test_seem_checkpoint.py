"""Public names and our base files."""

import json

import pytest
import torch
from foundation import rule
from foundation.test_seem import toy_config
from mmengine import Config

from mmprompt.common.checkpoint import save_tensors
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import read_base, save_base
from mmprompt.foundation.seem.reference_keys import IGNORED, to_ours, to_reference

MODELS_DIR = rule.DATA.parents[2] / 'configs/_base_/models'
LEFT_OUT = {'dilation_kernel', 'criterion.empty_weight'}


def shapes_of(variant: str) -> dict[str, tuple[int, ...]]:
    text = (rule.DATA / f'keys_{variant}.json').read_text()
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def on_meta(shapes) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


@pytest.mark.parametrize('variant, config', [('focalt', 'focal-t'), ('focall', 'focal-l')])
def test_public_keys_and_shapes(variant, config):
    public = shapes_of(variant)
    assert {key for key in public if key.startswith(IGNORED)} == LEFT_OUT
    expected = {key: shape for key, shape in public.items() if key not in LEFT_OUT}
    with torch.device('meta'):
        configured = SEEM(**Config.fromfile(MODELS_DIR / f'{config}.py').seem)
    recognised = SEEM.from_checkpoint(on_meta(public))
    for model in (configured, recognised):
        state = model.state_dict()
        assert {to_reference(key): tuple(v.shape) for key, v in state.items()} == expected
        assert all(to_ours(to_reference(key)) == key for key in state)
    assert str(configured) == str(recognised).replace('rate=0.0', 'rate=0.3')


def changed(public: dict, kind: str) -> tuple[dict, str]:
    public = dict(public)
    prefix = 'sem_seg_head.predictor.'
    if kind == 'missing':
        del public[prefix + 'pn_indicator.weight']
        return public, 'missing 1: decoder.pn_indicator'
    if kind == 'extra':
        public['sem_seg_head.predictor.surprise'] = (1,)
        return public, 'surprise'
    if kind == 'shape':
        public[prefix + 'query_embed.weight'] = (100, 512)
        return public, r'decoder.query_embed \(expected \(101, 512\), found \(100, 512\)\)'
    public = {
        key.replace('backbone.patch_embed', 'backbone.convs.0'): v for key, v in public.items()
    }
    return public, 'DaViT'


@pytest.mark.parametrize('kind', ['missing', 'extra', 'shape', 'davit'])
def test_what_does_not_fit_is_listed(kind):
    public, message = changed(shapes_of('focalt'), kind)
    with pytest.raises(UserError, match=message):
        SEEM.from_checkpoint(on_meta(public))


def test_a_dict_of_ours_needs_its_file():
    with pytest.raises(UserError, match='sem_seg_head'):
        SEEM.from_checkpoint({'decoder.query_feat': torch.zeros(1)})


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    config = toy_config()
    model = SEEM(**config).eval()
    path = save_base(tmp_path / 'base.safetensors', model, config, dict(iterations=3))
    return path, model


def test_base_file_round_trip(base):
    path, model = base
    loaded = SEEM.from_checkpoint(path)
    assert not loaded.training
    for (name, a), (other, b) in zip(model.state_dict().items(), loaded.state_dict().items()):
        assert name == other and torch.equal(a, b)
    names = ['road', 'car']
    rows = model.text_encoder.class_embeddings(names, ('{}.',))
    torch.testing.assert_close(loaded.text_encoder.class_embeddings(names, ('{}.',)), rows)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(x, rows).pred_masks, model(x, rows).pred_masks)
    assert read_base(path)[1]['record'] == dict(iterations=3)
    assert SEEM.from_checkpoint(path, text_encoder=False).text_encoder is None


def test_public_torch_file_round_trip(tmp_path):
    config = toy_config()
    for part in ('pixel_decoder', 'decoder'):
        config[part]['num_heads'] = 8
    config.pop('text_encoder')
    model = SEEM(**config).eval()
    state = {to_reference(key): value for key, value in model.state_dict().items()}
    state['criterion.empty_weight'] = torch.ones(3)
    torch.save(state, tmp_path / 'seem.pt')
    config['pixel_decoder']['num_groups'] = 4
    tensors, metadata = read_base(tmp_path / 'seem.pt')
    assert set(tensors) == set(model.state_dict())
    for name, value in metadata['config']['decoder'].items():
        assert config['decoder'].get(name, value) == value


@pytest.mark.parametrize('damage', ['weights', 'kind', 'format'])
def test_a_wrong_base_file_is_refused(base, damage, tmp_path):
    path, _ = base
    from mmprompt.common.checkpoint import load_tensors

    tensors, metadata = load_tensors(path)
    if damage == 'weights':
        tensors['decoder.query_feat'] += 1
    else:
        metadata[damage] = '2'
    other = save_tensors(tmp_path / 'other.safetensors', tensors, metadata)
    with pytest.raises(UserError, match='other.safetensors'):
        SEEM.from_checkpoint(other)
