# ADE20K's whole training set in random crops; docs/datasets.md says where to get it. 20,210 images
# train, 2,000 test. For few-shot learning see ade20k.py.
_base_ = ['./random-crop.py', './ade20k-classes.py']
dataset_type = 'mmseg.ADE20KDataset'
data_root = '{{$MMPROMPT_DATA:data}}/ADEChallengeData2016'
# Written by tools/class_prior.py.
class_prior = '{{$MMPROMPT_DATA:data}}/ADEChallengeData2016/class_prior.json'
scale = (2048, 512)
crop_size = (512, 512)
# How MMSegmentation tests SETR here, for a model's test_cfg; PSPNet takes images whole.
slide = dict(mode='slide', crop_size=crop_size, stride=(341, 341))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
        resize_type='mmseg.Resize',
    ),
    dict(type='mmseg.RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
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
    batch_size=16,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
