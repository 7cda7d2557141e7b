"""Backbones of MMPretrain and timm under `SPMBackbone`, through the wrappers that configs use."""

import pytest
import torch
from drop_in import HEIGHT, RESNET, WIDTH, build, for_inference, prompted, same, state_of, stir
from torch import Tensor, nn

from mmprompt.methods.spm import SPMBackbone

VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=(HEIGHT, WIDTH),
    patch_size=16,
    out_type='featmap',
)
#: A backbone of MMPretrain, and where it is prompted.
MMPRETRAIN = {
    'ResNet': (
        dict(type='mmpretrain.ResNet', depth=18, base_channels=8, out_indices=(0, 1, 2, 3)),
        RESNET,
    ),
    'VisionTransformer': (dict(VIT, out_indices=(1, 2)), ['layers.0', 'layers.2', 'out']),
    'VisionTransformer without class token': (
        dict(VIT, with_cls_token=False),
        ['layers.0', 'layers.2', 'out'],
    ),
    'SwinTransformer': (
        dict(
            type='mmpretrain.SwinTransformer',
            arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2]),
            img_size=(HEIGHT, WIDTH),
            pad_small_map=True,
            out_indices=(0, 1, 2, 3),
        ),
        ['stages.0', 'stages.1', 'stages.2', 'stages.3', 'out'],
    ),
    'ConvNeXt': (
        dict(
            type='mmpretrain.ConvNeXt',
            arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]),
            out_indices=(0, 1, 2, 3),
            gap_before_final_norm=False,
        ),
        ['stages.0', 'downsample_layers.2', 'stages.2', 'stages.3', 'out'],
    ),
}
#: A model of timm by its name, more of its arguments, and where it is prompted.
TIMM = {
    'resnet10t': ({}, [f'timm_model.{name}' for name in RESNET[:4]] + ['out']),
    'convnext_atto': ({}, ['timm_model.stages_0', 'timm_model.stages_2', 'out']),
    'vit_tiny_patch16_224': (
        dict(img_size=(HEIGHT, WIDTH), depth=3),
        ['timm_model.model.blocks.0', 'timm_model.model.blocks.2', 'out'],
    ),
    # Its maps are channel-last, between its stages and where it returns them.
    'swin_tiny_patch4_window7_224': (
        dict(img_size=(HEIGHT, WIDTH), embed_dim=12, depths=(1, 1, 2, 1)),
        ['timm_model.layers_0', 'timm_model.layers_2', 'timm_model.layers_3', 'out'],
    ),
}


def check(config: dict, places: list[str]) -> None:
    """The wrapper returns what the bare backbone returns, and prompts where it is told to."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    bare, wrapped = for_inference(build(config)), build(prompted(config, places))
    wrapped.eval()
    assert isinstance(wrapped, SPMBackbone) and type(wrapped.backbone) is type(bare)
    missing, unexpected = wrapped.load_state_dict(stir(bare), strict=False)
    assert not unexpected
    assert all(key.startswith(('matchers.', 'class_prior')) for key in missing)
    with torch.no_grad():
        expected = bare(images)
        assert same(wrapped(images), expected)
    assert same(state_of(wrapped.backbone), state_of(bare))

    for matcher in wrapped.matchers:
        nn.init.normal_(matcher.prompt.project.weight)
    wrapped.matchers.train()
    result = wrapped(images)
    assert shapes(result) == shapes(expected) and not same(result, expected)
    last_of(result).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in wrapped.matchers.parameters())
    assert all(p.grad is None for p in wrapped.backbone.parameters())


def shapes(result):
    return result.shape if isinstance(result, Tensor) else [shapes(part) for part in result]


def last_of(result) -> Tensor:
    return result if isinstance(result, Tensor) else last_of(result[-1])


@pytest.mark.parametrize('name', MMPRETRAIN)
def test_a_backbone_of_mmpretrain(name):
    pytest.importorskip('mmpretrain.models', reason='MMPretrain is not installed')
    check(*MMPRETRAIN[name])


@pytest.mark.parametrize('name', TIMM)
def test_a_backbone_of_timm(name):
    arguments, places = TIMM[name]
    whole = dict(type='mmseg.TIMMBackbone', model_name=name, features_only=True, pretrained=False)
    check({**whole, **arguments}, places)
