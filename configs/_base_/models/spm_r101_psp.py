# Frozen ImageNet ResNet-101 at output stride 8, five matchers, and PSPNet's head on the last map.
# As in MMSegmentation's pspnet_r50-d8 but for the auxiliary head, which the published numbers of
# parameters leave no room for.
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
            type='mmseg.ResNetV1c',
            depth=101,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
            norm_cfg=norm_cfg,
            norm_eval=False,
            init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet101_v1c'),
        ),
        prompt_at=['layer1', 'layer2', 'layer3', 'layer4', 'out'],
        prompter=dict(type='SPM', channels=256, norm_cfg=norm_cfg),
        tuning='spm',
    ),
    decode_head=dict(
        type='mmseg.PSPHead',
        in_channels=2048,
        in_index=3,
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
