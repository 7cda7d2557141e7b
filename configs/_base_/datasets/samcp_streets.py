# Clear street scenes with patches and the metrics of all three tasks:
#   python tools/make_streets.py --out data/streets/clear --condition clear --split train --num 500
#   python tools/make_streets.py --out data/streets/clear --condition clear --split val --num 100
#   python tools/make_streets.py --out data/streets/clear --condition clear --split test --num 60
# and for each split (train, val, test):
#   python tools/generate_patches.py configs/_base_/datasets/samcp_streets.py \
#       --generator felzenszwalb --split train
_base_ = './street-classes.py'
dataset_type = 'mmseg.CityscapesDataset'
data_root = 'data/streets/clear'
thing_classes = {{_base_.thing_classes}}
train_patches = 'data/patches/samcp_streets_train_felzenszwalb.db'
val_patches = 'data/patches/samcp_streets_val_felzenszwalb.db'
test_patches = 'data/patches/samcp_streets_test_felzenszwalb.db'
max_patches = None

labels = [
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=train_patches, max_patches=max_patches),
    *labels,
    dict(type='LoadUnits', thing_classes=thing_classes, keep_truth=False),
    dict(type='DetRandomFlip', prob=0.5),
    dict(type='PackPatchInputs', thing_classes=thing_classes),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    *labels,
    dict(type='LoadUnits', thing_classes=thing_classes),
    dict(type='PackPatchInputs', thing_classes=thing_classes),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=test_patches, max_patches=max_patches),
    *labels,
    dict(type='LoadUnits', thing_classes=thing_classes),
    dict(type='PackPatchInputs', thing_classes=thing_classes),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        indices=500,  # of 3,000 scenes, where SEEM-nano's own are there
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
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=val_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/test', seg_map_path='gtFine/test'),
        pipeline=test_pipeline,
    ),
)
val_evaluator = [
    dict(type='PanopticQuality', thing_classes=thing_classes),
    dict(type='InstanceAP', boxes=True),
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
