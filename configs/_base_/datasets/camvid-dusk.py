# CamVid's dusk clip at half size. Prompts are learned on the first 23 frames, chosen on the 8 that
# follow, and measured on the 31 of the clip's second half. docs/datasets.md says where it is had.
dataset_type = 'CamVidDataset'
data_root = '{{$MMPROMPT_DATA:data}}/camvid'
data_prefix = dict(img_path='train', seg_map_path='trainannot')
clips = ['0001TP']
scale = (240, 180)
class_names = (
    'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'traffic sign', 'fence', 'car',
    'pedestrian', 'bicyclist',
)  # fmt: skip

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type='FewShotDataset',
        k=16,
        seed=0,
        allow_missing=True,  # these frames show no fence
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=data_prefix,
            clips=clips,
            frames=(0, 23),
            pipeline=train_pipeline,
        ),
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
        data_prefix=data_prefix,
        clips=clips,
        frames=(23, 31),
        pipeline=test_pipeline,
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
        data_prefix=data_prefix,
        clips=clips,
        frames=(31, 62),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
