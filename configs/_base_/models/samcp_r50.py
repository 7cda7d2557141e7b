# SAM-CP as published on ResNet-50 and FPN: all stages of the backbone are trained, its BatchNorm is
# not. What is not said here is the default of the classes in mmprompt/methods/samcp/. A leaf adds
# `classes`, `head.thing_classes` and `head.text.names`.
model = dict(
    type='SAMCPDetector',
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
    head=dict(
        type='SAMCPHead',
        text=dict(clip='openai/clip-vit-base-patch32'),
        text_dim=512,
        patch_encoder=dict(type='SAMCPPatchEncoder'),
        decoder=dict(type='SAMCPAffinityDecoder'),
        classifier=dict(type='SAMCPClassifier'),
        denoising=dict(type='SAMCPDenoising'),
        loss=dict(
            type='SAMCPLoss',
            part_assigner=dict(type='SAMCPPartAssigner'),
            assigner=dict(type='SAMCPHungarianAssigner'),
        ),
    ),
    test_cfg=dict(type='SAMCPPredictor'),
)
