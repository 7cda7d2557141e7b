# SAM-CP in small on photographs: MobileSAM's patches, a frozen ImageNet ResNet-50 whose maps are
# kept in memory, CLIP's embeddings of the class names; 100 images to train and 26 to test. The run
# of docs/results.md. docs/datasets.md says where images, weights and embeddings are from.
#   python tools/yolo_to_coco.py --images data/coco128_seg/images --labels data/coco128_seg/labels \
#       --out data/coco128 --split train=100 val=rest --link
# Patches, as configs/_base_/datasets/samcp_coco128.py says, and what these can become:
#   python tools/patch_stats.py configs/samcp/samcp_r50_coco128.py --split train test --floors
# and then
#   python tools/train.py configs/samcp/samcp_r50_coco128.py
#   python tools/test.py configs/samcp/samcp_r50_coco128.py \
#       work_dirs/samcp_r50_coco128/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_nano.py',
    '../_base_/datasets/samcp_coco128.py',
    '../_base_/schedules/samcp_few-steps.py',
]
model = dict(
    classes={{_base_.class_names}},
    data_preprocessor=dict(
        _delete_=True,
        type='mmseg.SegDataPreProcessor',
        mean=[103.939, 116.779, 123.68],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
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
    # C2 to C5 of 100 images and of their mirror images: 1.7 GiB.
    feature_cache=dict(dtype='bf16'),
    neck=dict(in_channels=[256, 512, 1024, 2048], out_channels=128),
    head=dict(
        thing_classes={{_base_.thing_classes}},
        # CLIP's ViT-B/32, "a <name>".
        text='{{$MMPROMPT_DATA:data}}/text_embeddings/coco_clip_a+cname.npy',
        text_dim=512,
        in_channels=128,
    ),
)
default_hooks = dict(checkpoint=dict(interval=100))
max_iters = 2500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=100, end=max_iters, by_epoch=False),
]
