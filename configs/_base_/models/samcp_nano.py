# SAM-CP in small, on the frozen backbone of the SEEM-nano in the package, whose maps are kept in
# memory, and with its text encoder: two layers each of a width of 128. A leaf adds `classes` and
# `head.thing_classes`.
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
        type='mmprompt.FocalNet',
        embed_dim=24,
        depths=(2, 3, 2, 1),
        focal_levels=(2, 2, 2, 2),
        focal_windows=(3, 3, 3, 3),
        mlp_ratio=2.5,
        drop_path_rate=0.0,
        block='dw',
        layer_scale=0.5,
        init_cfg=dict(
            type='Pretrained', checkpoint='mmprompt://seem-nano_streets', prefix='backbone.'
        ),
    ),
    frozen_backbone=True,
    feature_cache=dict(root=None, memory_gb=4.0),
    neck=dict(
        type='mmseg.FPN',
        in_channels=[24, 48, 96, 192],
        out_channels=64,
        norm_cfg=dict(type='GN', num_groups=16),
        num_outs=4,
    ),
    head=dict(
        type='SAMCPHead',
        text=dict(base='mmprompt://seem-nano_streets'),
        text_dim=80,
        in_channels=64,
        dim=128,
        patch_encoder=dict(type='SAMCPPatchEncoder', hidden=256, num_layers=2, ffn_dim=512),
        decoder=dict(type='SAMCPAffinityDecoder', num_layers=3, ffn_dim=512),
        classifier=dict(type='SAMCPClassifier'),
        denoising=dict(type='SAMCPDenoising', num_queries=100),
        loss=dict(
            type='SAMCPLoss',
            part_assigner=dict(type='SAMCPPartAssigner'),
            assigner=dict(type='SAMCPHungarianAssigner'),
        ),
    ),
    test_cfg=dict(type='SAMCPPredictor'),
)
