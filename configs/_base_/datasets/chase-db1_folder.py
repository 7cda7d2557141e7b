# CHASE-DB1 as its archive unpacks, for small runs: crops, few workers, whole images in testing.
# docs/datasets.md says where to get it. The first 20 images train, the last 8 test. To choose
# settings on 4 of the 20, without a look at the test images:
#   --cfg-options train_dataloader.dataset.part=fit \
#     val_dataloader.dataset.part=held-out test_dataloader.dataset.part=held-out
dataset_type = 'ChaseDB1FolderDataset'
data_root = '{{$MMPROMPT_DATA:data}}/chase_db1'
data_prefix = dict(img_path='images', seg_map_path='manual')
class_names = ('background', 'vessel')
# Of the pixels of the 20 training images, as tools/class_prior.py counts them.
class_frequencies = (0.928133, 0.071867)
crop = (192, 192)

# Images stay at their size, 999x960: a crop is a 26th of one, so that in some hundred steps hardly
# a place is seen twice and further augmentation has nothing to prevent. A crop of which more than
# nine tenths are background, most of all the dark rim, is drawn again, up to ten times.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.RandomCrop', crop_size=crop, cat_max_ratio=0.9),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        part='train',
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
        data_prefix=data_prefix,
        part='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ForegroundDice', foreground=1)
test_evaluator = val_evaluator
