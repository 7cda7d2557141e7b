# ADE20K's 150 classes in the folders of ADEChallengeData2016; docs/datasets.md says where to get
# it.
#   python tools/make_few_shot_split.py configs/_base_/datasets/ade20k.py
_base_ = ['./short-side-512.py', './ade20k-classes.py']
dataset_type = 'mmseg.ADE20KDataset'
data_root = '{{$MMPROMPT_DATA:data}}/ADEChallengeData2016'
manifest = '{{$MMPROMPT_DATA:data}}/ADEChallengeData2016/16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    ),
)
test_dataloader = val_dataloader
