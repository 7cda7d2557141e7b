# STARE in the folders that MMSegmentation's converter writes; docs/datasets.md says where to get
# it. 10 images train, 10 test.
_base_ = './random-crop.py'
dataset_type = 'mmseg.STAREDataset'
data_root = '{{$MMPROMPT_DATA:data}}/STARE'
# Written by tools/class_prior.py.
class_prior = '{{$MMPROMPT_DATA:data}}/STARE/class_prior.json'
class_names = ('background', 'vessel')
scale = (605, 700)
crop_size = (128, 128)
# How MMSegmentation tests its U-Nets here, for a model's test_cfg; without it, images are whole.
slide = dict(mode='slide', crop_size=crop_size, stride=(85, 85))

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
    batch_size=4,
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
val_evaluator = dict(type='ForegroundDice', foreground=1)
test_evaluator = val_evaluator
