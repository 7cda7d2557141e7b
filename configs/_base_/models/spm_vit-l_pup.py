# Frozen ImageNet ViT-L, three matchers that divide its 24 units evenly, and SETR's PUP head with
# the three auxiliary heads that MMSegmentation gives it on ADE20K: 13.14 M parameters together, the
# paper's figure for the head that it does not name.
num_classes = 150
norm_cfg = dict(type='SyncBN')
auxiliary = dict(
    type='mmseg.SETRUPHead',
    in_channels=1024,
    channels=256,
    num_classes=num_classes,
    num_convs=2,
    up_scale=4,
    kernel_size=3,
    dropout_ratio=0,
    norm_cfg=norm_cfg,
    norm_layer=dict(type='LN', eps=1e-6),
    align_corners=False,
    loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=0.4),
)
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
            type='mmseg.VisionTransformer',
            img_size=(512, 512),
            patch_size=16,
            patch_bias=True,
            embed_dims=1024,
            num_layers=24,
            num_heads=16,
            out_indices=(9, 14, 19, 23),
            norm_cfg=dict(type='LN', eps=1e-6),
            with_cls_token=True,
            interpolate_mode='bilinear',
            init_cfg=dict(
                type='Pretrained', checkpoint='{{$MMPROMPT_WEIGHTS:weights}}/vit_large_p16_384.pth'
            ),
        ),
        prompt_at=['layers.0', 'layers.8', 'layers.16'],
        num_classes=num_classes,
        prompter=dict(type='SPM', channels=256, norm_cfg=norm_cfg),
        tuning='spm',
    ),
    decode_head=dict(
        type='mmseg.SETRUPHead',
        in_channels=1024,
        in_index=3,
        channels=256,
        num_classes=num_classes,
        num_convs=4,
        up_scale=2,
        kernel_size=3,
        dropout_ratio=0,
        norm_cfg=norm_cfg,
        norm_layer=dict(type='LN', eps=1e-6),
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=[
        dict(in_index=0, **auxiliary),
        dict(in_index=1, **auxiliary),
        dict(in_index=2, **auxiliary),
    ],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
