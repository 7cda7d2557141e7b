"""Backbones of three kinds, small, `SPMBackbone` around them, and a segmentor with one."""

from pathlib import Path

import torch
from drop_in import RESNET as PLACES
from drop_in import build, stir
from mmengine.config import ConfigDict
from torch import Tensor, nn
from toy import CLASSES as STREETS

from mmprompt.methods.spm import SPMBackbone

CLASSES, SIZE = 3, (64, 96)
RESNET = dict(type='mmseg.ResNetV1c', depth=18, stem_channels=8, base_channels=8)
VIT = dict(
    type='mmseg.VisionTransformer',
    img_size=SIZE,
    embed_dims=8,
    num_layers=3,
    num_heads=2,
    mlp_ratio=1,
    out_indices=(0, 2),
    output_cls_token=True,
)
SWIN = dict(
    type='mmseg.SwinTransformer',
    embed_dims=4,
    depths=(1, 2, 1, 1),
    num_heads=(1, 1, 1, 1),
    window_size=4,
)
#: A backbone and where it is prompted.
BACKBONES = {
    'resnet': (RESNET, ['layer1', 'layer2', 'layer3.1', 'layer4', 'out']),
    'vit': (VIT, ['layers.0', 'layers.1', 'layers.2', 'out']),
    'swin': (SWIN, ['stages.0', 'stages.1', 'stages.1.blocks.1', 'stages.3', 'out']),
}


def wrapped(backbone=RESNET, places=PLACES, matcher=None, **options) -> SPMBackbone:
    """A wrapped backbone of three classes; `options` are its further arguments."""
    config = dict(type='SPMBackbone', backbone=backbone, prompt_at=places, num_classes=CLASSES)
    prompter = dict(type='SPM', channels=8, **(matcher or {}))
    return build({**config, 'prompter': prompter, **options})


def open_up(model: SPMBackbone) -> SPMBackbone:
    """Random prompts, as training would leave them."""
    model.load_base()
    for matcher in model.matchers:
        nn.init.normal_(matcher.prompt.project.weight, std=0.5)
    return model


def images(batch=2, size=SIZE) -> Tensor:
    return torch.randn(batch, 3, *size)


def flat(result) -> list[Tensor]:
    """The tensors of nested results, in order."""
    return [result] if isinstance(result, Tensor) else [t for part in result for t in flat(part)]


def write_backbone(path: Path) -> Path:
    """Weights of a ResNet, all of them random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(stir(build(RESNET)), path)
    return path


def prompted_segmentor(folder: Path, tuning: str = 'spm', classes=STREETS, **model) -> ConfigDict:
    """Model config of an `SPMSegmentor` over a ResNet, whose weights are written to `folder`."""
    init_cfg = dict(type='Pretrained', checkpoint=str(write_backbone(folder / 'resnet.pth')))
    number = len(classes)
    config = dict(
        type='SPMSegmentor',
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=255,
            size_divisor=32,
            test_cfg=dict(size_divisor=32),
        ),
        backbone=dict(
            type='SPMBackbone',
            backbone=dict(RESNET, init_cfg=init_cfg),
            prompt_at=PLACES,
            num_classes=number,
            class_prior=[(2 * i + 1) / number**2 for i in range(number)],
            prompter=dict(type='SPM', channels=8),
            tuning=tuning,
        ),
        decode_head=dict(
            type='mmseg.FCNHead',
            in_channels=64,
            in_index=3,
            channels=8,
            num_convs=1,
            concat_input=False,
            dropout_ratio=0.1,
            num_classes=number,
            norm_cfg=dict(type='BN'),
            align_corners=False,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'),
        ),
        classes=classes,
        test_cfg=dict(mode='whole'),
    )
    return ConfigDict({**config, **model})


def head_parameters(classes: int) -> dict[str, int]:
    """Numbers of parameters of the head by name."""
    conv, out = 'decode_head.convs.0.', 'decode_head.conv_seg.'
    numbers = {f'{conv}conv.weight': 9 * 64 * 8, f'{conv}bn.weight': 8, f'{conv}bn.bias': 8}
    return numbers | {f'{out}weight': 8 * classes, f'{out}bias': classes}


def matcher_parameters(classes: int) -> dict[str, int]:
    """Numbers of parameters of the five matchers by name, width 8, BatchNorm."""
    numbers = {}
    for index, channels in enumerate((8, 8, 16, 32, 64)):
        for branch, out in (('semantic', classes), ('prompt', channels)):
            name = f'backbone.matchers.{index}.{branch}.'
            convs = {'embed': (channels + classes) * 8, 'context.fuse': 8 * 8}
            convs |= {f'context.branches.{i}': 9 * 2 * 2 for i in range(4)}
            for conv, weight in convs.items():
                width = 2 if 'branches' in conv else 8
                numbers[f'{name}{conv}.conv.weight'] = weight
                numbers |= {f'{name}{conv}.bn.{kind}': width for kind in ('weight', 'bias')}
            numbers |= {f'{name}project.weight': 8 * out, f'{name}project.bias': out}
    return numbers
