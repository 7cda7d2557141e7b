# The first 128 training images of COCO with instances (coco128-seg, labels in YOLO's format; two
# images have none), 100 to train and 26 to test, with MobileSAM's patches. All classes are things.
#   python tools/yolo_to_coco.py --images data/coco128_seg/images --labels data/coco128_seg/labels \
#       --out data/coco128 --split train=100 val=rest --link
# and the patches of both splits in one file (half a minute an image on a busy core; --weights FILE
# if mobile_sam.pt does not lie in weights/):
#   python tools/generate_patches.py --images data/coco128/images --generator mobile-sam \
#       --points-per-side 16 --denser 1 --crops none --dtype bfloat16 \
#       --out data/patches/coco128_mobile-sam.db
_base_ = ['./coco-classes.py', './samcp-evaluators.py']
dataset_type = 'CocoInstanceSegDataset'
data_root = 'data/coco128'
train_patches = val_patches = 'data/patches/coco128_mobile-sam.db'
max_patches = 100

# The long side is bounded by the larger number, which no image reaches.
scale = (65536, 320)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=train_patches, max_patches=max_patches),
    dict(type='LoadAnnotationsFromCocoInstances'),
    dict(type='LoadUnits', keep_truth=False),
    dict(type='DetResize', scale=scale, keep_ratio=True),
    dict(type='DetRandomFlip', prob=0.5),
    dict(type='PackPatchInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    dict(type='DetResize', scale=scale, keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsFromCocoInstances'),
    dict(type='LoadUnits'),
    dict(type='PackPatchInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img_path='images'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img_path='images'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
