# SAM-CP as published on ResNet-50 and FPN: all stages of the backbone are trained, its BatchNorm is
# not. Class names are encoded by CLIP. A leaf adds `classes`, `head.thing_classes` and
# `head.text.names`.
_base_ = './samcp.py'
model = dict(
    backbone=dict(
        type='mmseg.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        type='mmseg.FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=4,
    ),
    head=dict(text=dict(clip='ViT-B-32-quickgelu', pretrained='openai'), text_dim=512),
)
