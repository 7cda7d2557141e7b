# ADE20K's 150 classes, 100 of them things, with the panoptic annotations that Mask2Former's
# datasets/prepare_ade20k_pan_seg.py makes; docs/datasets.md says where to get the data. For each
# split (train, val):
#   python tools/generate_patches.py configs/_base_/datasets/samcp_ade20k.py \
#       --generator sam --split train
_base_ = ['./ade20k-panoptic-classes.py', './samcp-evaluators.py']
dataset_type = 'CocoPanopticSegDataset'
data_root = '{{$MMPROMPT_DATA:data}}/ADEChallengeData2016'
train_patches = 'data/patches/samcp_ade20k_train_sam.db'
val_patches = 'data/patches/samcp_ade20k_val_sam.db'
max_patches = None

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=train_patches, max_patches=max_patches),
    dict(type='LoadAnnotationsFromCocoPanoptic', allow_hidden=True),
    dict(type='LoadUnits', keep_truth=False),
    # Short side 320 to 1280 in steps of a tenth of 640, long side at most 2560.
    dict(
        type='DetRandomChoiceResize',
        scales=[64 * tenths for tenths in range(5, 21)],
        resize_type='DetResizeShortestEdge',
        max_size=2560,
    ),
    dict(type='DetRandomCrop', crop_size=(640, 640)),
    dict(type='DetRandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='PackPatchInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    dict(type='DetResizeShortestEdge', scale=640, max_size=2560),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsFromCocoPanoptic', allow_hidden=True),
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
        ann_file='ade20k_panoptic_train.json',
        data_prefix=dict(img_path='images/training', seg_map_path='ade20k_panoptic_train'),
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
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(img_path='images/validation', seg_map_path='ade20k_panoptic_val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
