# CamVid's day clips at half size, labels without instances. docs/datasets.md says where to get it.
dataset_type = 'CamVidDataset'
data_root = '{{$MMPROMPT_DATA:data}}/camvid'
scale = (240, 180)
# Each class in the words that stand for it in the text encoder, the data set's own name first.
class_texts = (
    'sky',
    'building',
    ('pole', 'post'),
    ('road', 'street'),
    ('sidewalk', 'pavement'),
    ('tree', 'vegetation'),
    ('traffic sign', 'sign symbol'),
    ('fence', 'railing'),
    ('car', 'vehicle'),
    ('pedestrian', 'person'),
    ('bicyclist', 'cyclist'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='PanopticFromLabels'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs', thing_classes=(), min_area=16),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        clips=['0006R0', '0016E5'],
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
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
