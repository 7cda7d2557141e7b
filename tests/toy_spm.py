"""A prompted segmentor of the smallest size, with random weights that do something."""

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

PLACES = ['layer1', 'layer2', 'layer3', 'layer4', 'out']
LOSS = dict(type='mmseg.CrossEntropyLoss')
NORM = dict(type='BN')
PUP = dict(
    type='mmseg.SETRUPHead',
    num_convs=2,
    up_scale=2,
    norm_layer=dict(type='LN', eps=1e-6),
    norm_cfg=NORM,
    loss_decode=LOSS,
)
PSP = dict(type='mmseg.PSPHead', norm_cfg=NORM, loss_decode=LOSS)
RESNET = dict(
    type='mmseg.ResNetV1c',
    depth=18,
    stem_channels=8,
    base_channels=8,
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
)


def toy_spm(classes, head: dict = PUP, backbone: dict = RESNET, **wrapper) -> ConfigDict:
    """Model config; `wrapper` overrides keys of the `SPMBackbone`."""
    width = backbone.get('embed_dims') or 8 * backbone['base_channels']
    head = dict(head, in_channels=width, channels=8, num_classes=len(classes))
    wrapped = dict(
        type='SPMBackbone',
        backbone=backbone,
        prompt_at=PLACES,
        num_classes=len(classes),
        prompter=dict(type='SPM', channels=8),
    )
    return ConfigDict(
        type='SPMSegmentor',
        classes=list(classes),
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[120.0, 110.0, 100.0],
            std=[60.0, 50.0, 70.0],
            bgr_to_rgb=True,
            size_divisor=32,
            test_cfg=dict(size_divisor=32),
        ),
        backbone={**wrapped, **wrapper},
        decode_head=dict(head, in_index=-1),
        test_cfg=dict(mode='whole'),
    )


def train_a_little(model: nn.Module, steps: int = 3, size=(64, 64)) -> nn.Module:
    """A few steps on random data, so that no prompt is zero; in eval mode afterwards."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(steps):
        samples = []
        for _ in range(2):
            sample = SegDataSample(metainfo=dict(img_shape=size))
            labels = torch.randint(model.num_classes, (1, *size), generator=generator)
            sample.gt_sem_seg = PixelData(data=labels)
            samples.append(sample)
        losses = model.loss(torch.randn(2, 3, *size, generator=generator), samples)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    return model.eval()
