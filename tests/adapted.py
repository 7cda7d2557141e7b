"""Small transformers with adapters, beside plain twins of the same weights."""

import copy

import pytest
import torch
from mmseg.models import VisionTransformer  # noqa: F401  (registers every backbone)
from mmseg.registry import MODELS
from torch import nn

from mmprompt.common.freeze import freeze
from mmprompt.methods.spm.adapters import build_adapters

WIDTH, UNITS = 24, 3
#: Neither square nor of the size that the position embedding was made for.
IMAGES = (2, 3, 32, 48)
VIT = dict(
    type='mmseg.VisionTransformer',
    img_size=32,
    patch_size=8,
    embed_dims=WIDTH,
    num_layers=UNITS,
    num_heads=3,
    mlp_ratio=2,
    out_indices=(0, 2),
)
TIMM_VIT = dict(
    type='mmseg.TIMMBackbone',
    model_name='vit_tiny_patch16_224',
    pretrained=False,
    img_size=IMAGES[2:],
    embed_dim=WIDTH,
    depth=UNITS,
    num_heads=3,
)
EVA = {**TIMM_VIT, 'model_name': 'eva02_tiny_patch14_224', 'patch_size': 16, 'swiglu_mlp': False}
SWIN = dict(
    type='mmseg.SwinTransformer',
    embed_dims=12,
    depths=(2, 1),
    num_heads=(2, 3),
    strides=(4, 2),
    window_size=4,
    out_indices=(0, 1),
)
BEIT = dict(
    type='mmseg.BEiT',
    img_size=IMAGES[2:],
    patch_size=8,
    embed_dims=WIDTH,
    num_layers=UNITS,
    num_heads=3,
    out_indices=(2,),
    qv_bias=True,
)
RESNET = dict(type='mmseg.ResNetV1c', depth=18)
METHODS = dict(
    vpt=dict(type='VPT', num_tokens=5),
    shallow=dict(type='VPT', num_tokens=5, deep=False),
    adaptformer=dict(type='AdaptFormer', channels=4),
    lora=dict(type='LoRA', rank=2, alpha=6, targets=('query', 'key', 'value')),
)
ZERO_START = ('adaptformer', 'lora')
BACKBONES = dict(vit=VIT, timm=TIMM_VIT, eva=EVA, swin=SWIN, beit=BEIT)


def built(config: dict, **changes) -> nn.Module:
    """A frozen backbone whose every weight, zeros of an initialisation included, is drawn."""
    if config['type'] == 'mmseg.TIMMBackbone':
        pytest.importorskip('timm')
    torch.manual_seed(0)
    backbone = MODELS.build({**copy.deepcopy(config), **changes})
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.2)
    return freeze(backbone)


def adapted(config: dict, method: str, **changes) -> tuple[nn.Module, nn.Module, nn.ModuleList]:
    """The same backbone twice, plain and with adapters; nothing of these is zero."""
    plain = built(config, **changes)
    backbone = copy.deepcopy(plain)
    adapters = build_adapters(backbone, METHODS[method])
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=0.2)
    return plain, backbone, adapters


def images(shape: tuple = IMAGES) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def close(first, second, tolerance: float = 1e-5) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def differs(first, second) -> bool:
    return (
        max(float((one - other).detach().abs().max()) for one, other in zip(first, second)) > 1e-3
    )
