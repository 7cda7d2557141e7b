# ISPRS Vaihingen in the tiles of 512x512 pixels that MMSegmentation's converter writes;
# docs/datasets.md says where to get it. 344 tiles train, 398 test.
_base_ = './random-crop.py'
dataset_type = 'mmseg.ISPRSDataset'
data_root = '{{$MMPROMPT_DATA:data}}/vaihingen'
# Written by tools/class_prior.py.
class_prior = '{{$MMPROMPT_DATA:data}}/vaihingen/class_prior.json'
# The data set's own names, as MMSegmentation writes them.
class_names = ('impervious_surface', 'building', 'low_vegetation', 'tree', 'car', 'clutter')
scale = (512, 512)
crop_size = (512, 512)

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
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
