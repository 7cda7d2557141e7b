# Procedural street scenes in the folders of Cityscapes, made by
#   python tools/make_streets.py --out data/streets/clear --condition clear --split train --num 3000
#   python tools/make_streets.py --out data/streets/clear --condition clear --split val --num 100
dataset_type = 'mmseg.CityscapesDataset'
data_root = 'data/streets/clear'
data_record = 'data/streets/clear/streets.json'
thing_classes = (11, 12, 13, 14, 15, 16, 17, 18)
crop_size = (192, 384)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(
        type='RandomResize',
        scale=(512, 256),
        ratio_range=(0.75, 1.25),
        keep_ratio=True,
        resize_type='mmseg.Resize',
    ),
    dict(type='mmseg.RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='PackPanopticInputs', thing_classes=thing_classes, min_area=16),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='PackPanopticInputs', thing_classes=thing_classes),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
