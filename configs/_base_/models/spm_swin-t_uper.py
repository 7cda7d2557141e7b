# Frozen ImageNet Swin-T, a matcher before each of its four stages and before the head, and
# UPerNet's head on all four maps. MMSegmentation's upernet_swin without the auxiliary head.
norm_cfg = dict(type='SyncBN')
model = dict(
    type='SPMSegmentor',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='SPMBackbone',
        backbone=dict(
            type='mmseg.SwinTransformer',
            embed_dims=96,
            depths=(2, 2, 6, 2),
            num_heads=(3, 6, 12, 24),
            window_size=7,
            drop_path_rate=0.3,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
                'swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
            ),
        ),
        prompt_at=['stages.0', 'stages.1', 'stages.2', 'stages.3', 'out'],
        prompter=dict(type='SPM', channels=256, norm_cfg=norm_cfg),
        tuning='spm',
    ),
    decode_head=dict(
        type='mmseg.UPerHead',
        in_channels=[96, 192, 384, 768],
        in_index=[0, 1, 2, 3],
        channels=512,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
