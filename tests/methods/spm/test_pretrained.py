"""Pretrained weights of a wrapped backbone: what is read, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
from drop_in import build, stir
from safetensors.torch import save_file

from mmprompt.common.errors import UserError
from mmprompt.common.pretrained import checkpoint_of, without_pretrained

RESNET = dict(type='mmseg.ResNetV1c', depth=18, stem_channels=4, base_channels=4)
SWIN = dict(
    type='mmseg.SwinTransformer',
    embed_dims=4,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 1, 1),
    window_size=4,
)
VIT = dict(
    type='mmseg.VisionTransformer',
    img_size=(64, 96),
    embed_dims=8,
    num_layers=1,
    num_heads=2,
    mlp_ratio=1,
    out_indices=0,
)


def wrapped(backbone: dict, tuning='head', **options):
    config = dict(type='SPMBackbone', backbone=backbone, prompt_at=['layer1'], num_classes=3)
    return build(dict(config, tuning=tuning, **options))


def named(path: Path | str, backbone=RESNET, **more) -> dict:
    return dict(backbone, init_cfg=dict(type='Pretrained', checkpoint=str(path), **more))


@pytest.fixture
def weights():
    return {k: v.clone() for k, v in stir(build(RESNET)).items()}


def equal(model, expected: dict) -> bool:
    state = model.backbone.state_dict()
    return all(torch.equal(value, state[name]) for name, value in expected.items())


@pytest.mark.parametrize('kind', ['plain', 'state_dict', 'safetensors', 'prefix', 'list', 'own'])
@pytest.mark.parametrize('tuning', ['head', 'full'])
def test_files_of_every_kind(kind, tuning, weights, tmp_path):
    path = tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pth')
    if kind == 'safetensors':
        save_file(weights, path)
    elif kind == 'prefix':
        part = {f'backbone.{name}': value for name, value in weights.items()}
        torch.save(dict(state_dict=dict(part, **{'decode_head.w': torch.ones(1)})), path)
    else:
        torch.save(dict(state_dict=weights) if kind == 'state_dict' else weights, path)
    config, options = named(path), {}
    if kind == 'prefix':
        config = named(path, prefix='backbone.')
    elif kind == 'list':
        config['init_cfg'] = [dict(type='Kaiming', layer='Conv2d'), config['init_cfg']]
    elif kind == 'own':  # of the wrapper, as a config has it that names a backbone's there
        config, options = RESNET, dict(init_cfg=config['init_cfg'])
    model = wrapped(config, tuning, **options)
    assert not equal(model, weights)
    model.load_base()
    assert equal(model, weights)


@pytest.mark.parametrize('way', ['init_weights', 'forward'])
def test_it_is_read_once_wherever_it_begins(way, weights, tmp_path):
    path = tmp_path / 'w.pth'
    torch.save(weights, path)
    model = wrapped(named(path)).eval()
    model.init_weights() if way == 'init_weights' else model(torch.zeros(1, 3, 64, 96))
    assert equal(model, weights)
    path.unlink()
    model.init_weights()
    model.load_base()
    assert equal(model, weights)


@pytest.mark.parametrize('tuning', ['head', 'full'])
def test_a_missing_file(tuning, tmp_path):
    model = wrapped(named(tmp_path / 'w.pth'), tuning)
    with pytest.raises(UserError, match=r'w\.pth: expected a checkpoint, found no such file'):
        model.load_base()


def test_an_address_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))

    def download(*_, **__):
        raise OSError('Network is unreachable')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    model = wrapped(named('https://example.org/resnet18.pth'))
    with pytest.raises(UserError, match=r'https://example.org/resnet18\.pth: .*put it at .*'):
        model.load_base()


def test_another_backbone(weights, tmp_path):
    torch.save({f'timm.{name}': value for name, value in weights.items()}, tmp_path / 'w.pth')
    for tuning in ('head', 'full'):
        with pytest.raises(UserError, match=r'w\.pth: .* of ResNetV1c, .*Give weights of this'):
            wrapped(named(tmp_path / 'w.pth'), tuning).load_base()


def test_a_wider_backbone(weights, tmp_path):
    torch.save(weights, tmp_path / 'w.pth')
    with pytest.raises(UserError, match='or of other shapes'):
        wrapped(named(tmp_path / 'w.pth', dict(RESNET, base_channels=8))).load_base()


@pytest.mark.parametrize('part', ['layer4.', 'layer2.0.bn1.running_mean', 'layer2.0.bn1.weight'])
def test_a_part_is_missing(part, weights, tmp_path, warned):
    rest = {k: v for k, v in weights.items() if not k.startswith(part)}
    torch.save(rest, tmp_path / 'w.pth')
    with pytest.raises(UserError, match=r'without \d+ of them, ' + part):
        wrapped(named(tmp_path / 'w.pth')).load_base()
    # What is trained anyway may begin anew, as in MMSegmentation, but not silently.
    trained = wrapped(named(tmp_path / 'w.pth'), 'full')
    trained.load_base()
    assert equal(trained, rest) and part in ''.join(warned)


def test_a_wrong_prefix(weights, tmp_path):
    torch.save(weights, tmp_path / 'w.pth')
    with pytest.raises(UserError, match=r'model\. is not in .*correct the prefix'):
        wrapped(named(tmp_path / 'w.pth', prefix='model.')).load_base()


def test_norms_that_a_backbone_adds_to_its_weights(tmp_path, warned):
    """ImageNet's Swin has one norm behind its last level, a Swin for segmentation one for each."""
    weights = stir(build(SWIN))
    added = {name for name in weights if name.startswith('norm')}
    assert len(added) == 8
    torch.save({k: v for k, v in weights.items() if k not in added}, tmp_path / 'w.pth')
    model = wrapped(named(tmp_path / 'w.pth', SWIN))
    model.load_base()
    state = model.backbone.state_dict()
    assert all(torch.equal(state[k], weights[k]) for k in weights if k not in added)
    assert all((state[k] == float('weight' in k)).all() for k in added)
    assert 'without 8 of them, norm0.weight' in ''.join(warned)


def test_position_embeddings_are_resized_as_ever(tmp_path):
    weights = stir(build(dict(VIT, img_size=(32, 32))))
    torch.save(weights, tmp_path / 'w.pth')
    model = wrapped(named(tmp_path / 'w.pth', VIT))
    model.load_base()
    assert model.backbone.pos_embed.shape == (1, 1 + 4 * 6, 8)
    assert torch.equal(model.backbone.pos_embed[:, 0], weights['pos_embed'][:, 0])


@pytest.mark.parametrize('tuning', ['head', 'full'])
def test_a_backbone_without_weights_is_told_of(tuning, warned):
    wrapped(RESNET, tuning).load_base()
    assert 'ResNetV1c names no pretrained weights' in ''.join(warned)


def test_timm_brings_its_own_weights_or_is_told_of(warned):
    pytest.importorskip('timm')
    config = dict(type='mmseg.TIMMBackbone', model_name='resnet10t', features_only=True)
    model = wrapped(dict(config, pretrained=False))
    model.load_base()
    assert 'TIMMBackbone names no pretrained weights' in ''.join(warned)


# ------------------------------------------------------------------ from scratch
def test_from_scratch_reads_no_file(tmp_path, warned):
    nowhere = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
    for init_cfg in (nowhere, [dict(type='Constant', val=0.5, layer='Conv2d'), nowhere]):
        model = wrapped(dict(RESNET, init_cfg=init_cfg), 'scratch')
        model.init_weights()
        ours = isinstance(init_cfg, list)
        assert bool((model.backbone.layer1[0].conv1.weight == 0.5).all()) is ours
    for options in (dict(pretrained=nowhere['checkpoint']), dict(init_cfg=nowhere)):
        wrapped(RESNET, 'scratch', **options).init_weights()
    assert not warned


def test_configs_that_ask_for_no_weights():
    other = dict(type='Normal', std=1)
    pretrained = dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')
    for config, expected in (
        (dict(init_cfg=pretrained), {}),
        (dict(init_cfg=[pretrained]), {}),
        (dict(init_cfg=[other, pretrained]), dict(init_cfg=[other])),
        (dict(init_cfg=other), dict(init_cfg=other)),
        (dict(init_cfg=None, depth=18), dict(depth=18)),
        (dict(pretrained='a.pth'), dict(pretrained=None)),
        (dict(pretrained=True), dict(pretrained=False)),
        (dict(checkpoint_path='a.pth'), dict(checkpoint_path='')),
    ):
        before = copy.deepcopy(config)
        assert without_pretrained(config) == expected and config == before


def test_the_file_that_an_init_cfg_names():
    pretrained = dict(type='Pretrained', checkpoint='a.pth')
    assert checkpoint_of(pretrained) == checkpoint_of([dict(type='Normal'), pretrained]) == 'a.pth'
    assert checkpoint_of(None) is checkpoint_of([]) is checkpoint_of(dict(type='Normal')) is None
