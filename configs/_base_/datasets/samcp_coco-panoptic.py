# COCO 2017 with panoptic annotations, augmented as DETR's training is; the data's own instances are
# what AP is measured against. docs/datasets.md says where to get it. For each split (train, val):
#   python tools/generate_patches.py configs/_base_/datasets/samcp_coco-panoptic.py \
#       --generator sam --split train
_base_ = ['./coco-panoptic-classes.py', './samcp-augmentation.py', './samcp-evaluators.py']
dataset_type = 'CocoPanopticSegDataset'
data_root = '{{$MMPROMPT_DATA:data}}/coco'
train_patches = 'data/patches/samcp_coco-panoptic_train_sam.db'
val_patches = 'data/patches/samcp_coco-panoptic_val_sam.db'
max_patches = None

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=train_patches, max_patches=max_patches),
    dict(type='LoadAnnotationsFromCocoPanoptic'),
    dict(type='LoadUnits', keep_truth=False),
    dict(type='DetRandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [{{_base_.resize}}],
            [{{_base_.resize_first}}, {{_base_.crop}}, {{_base_.resize}}],
        ],
    ),
    dict(type='PackPatchInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    dict(type='DetResize', scale=(1333, 800), keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsFromCocoPanoptic'),
    dict(
        type='LoadCocoInstances',
        ann_file='{{$MMPROMPT_DATA:data}}/coco/annotations/instances_val2017.json',
        classes={{_base_.class_names}},
    ),
    dict(type='LoadUnits'),
    dict(type='PackPatchInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(img_path='train2017', seg_map_path='annotations/panoptic_train2017'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img_path='val2017', seg_map_path='annotations/panoptic_val2017'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
