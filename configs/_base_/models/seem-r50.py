# SEEM's decoders in small on a frozen ImageNet ResNet-50 (caffe style: BGR, mean only); names,
# tokens and text encoder as in seem-nano.
_base_ = './seem-nano.py'

seem = dict(
    backbone=dict(
        _delete_=True,
        type='mmseg.ResNet',
        depth=50,
        style='caffe',
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMPROMPT_WEIGHTS:weights}}/resnet50_imagenet_caffe.safetensors',
        ),
    ),
    pixel_decoder=dict(
        in_channels=(256, 512, 1024, 2048),
        dim=128,
        mask_dim=128,
        num_heads=8,
        ffn_dim=256,
        num_groups=32,
    ),
    decoder=dict(dim=128, num_layers=3, num_heads=8, ffn_dim=256, mask_dim=128, proj_dim=128),
    text_encoder=dict(dim=128),
)
data_preprocessor = dict(
    type='mmseg.SegDataPreProcessor',
    mean=[103.939, 116.779, 123.68],
    std=[1.0, 1.0, 1.0],
    bgr_to_rgb=False,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
    test_cfg=dict(size_divisor=32),
)
