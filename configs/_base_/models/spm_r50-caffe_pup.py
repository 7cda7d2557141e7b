# Frozen ImageNet ResNet-50 (caffe style: BGR, mean only) at output stride 16, five matchers, and
# the progressive upsampling head of SETR on the last map.
num_classes = 2
norm_cfg = dict(type='BN')
model = dict(
    type='SPMSegmentor',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[103.939, 116.779, 123.68],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type='SPMBackbone',
        backbone=dict(
            type='mmseg.ResNet',
            depth=50,
            style='caffe',
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            norm_cfg=norm_cfg,
            norm_eval=False,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='{{$MMPROMPT_WEIGHTS:weights}}/resnet50_imagenet_caffe.safetensors',
            ),
        ),
        prompt_at=['layer1', 'layer2', 'layer3', 'layer4', 'out'],
        num_classes=num_classes,
        prompter=dict(type='SPM', channels=256, norm_cfg=norm_cfg),
        tuning='spm',
    ),
    decode_head=dict(
        type='mmseg.SETRUPHead',
        in_channels=2048,
        in_index=3,
        channels=256,
        num_classes=num_classes,
        num_convs=3,
        up_scale=2,
        kernel_size=3,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        norm_layer=dict(type='LN', eps=1e-6),
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
