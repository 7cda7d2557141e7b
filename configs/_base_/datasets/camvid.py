# CamVid at half size with all its clips: 367 frames train, the 101 of its own validation folder
# test. docs/datasets.md says where to get it. To choose settings without a look at those, leave out
# the last 20 frames of each training clip:
#   --cfg-options train_dataloader.dataset.frames=0,-20 \
#     val_dataloader.dataset.data_prefix.img_path=train \
#     val_dataloader.dataset.data_prefix.seg_map_path=trainannot \
#     val_dataloader.dataset.frames=-20,1000  (and so for test_dataloader)
dataset_type = 'CamVidDataset'
data_root = '{{$MMPROMPT_DATA:data}}/camvid'
scale = (240, 180)
class_names = (
    'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'traffic sign', 'fence', 'car',
    'pedestrian', 'bicyclist',
)  # fmt: skip
# Of the pixels of the 367 training images, as tools/class_prior.py counts them.
class_frequencies = (
    0.175376, 0.242148, 0.010233, 0.329596, 0.046707, 0.101238,
    0.012212, 0.011731, 0.061068, 0.006655, 0.003037,
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
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
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
