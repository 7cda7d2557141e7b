# What ACDC's four conditions share: the official folders, below which each is a folder of its own
# (acdc-fog.py, acdc-night.py, acdc-rain.py, acdc-snow.py). docs/datasets.md says where to get them.
_base_ = ['./short-side-512.py', './street-classes.py']
dataset_type = 'mmseg.CityscapesDataset'
data_root = '{{$MMPROMPT_DATA:data}}/acdc'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            img_suffix='_rgb_anon.png',
            seg_map_suffix='_gt_labelTrainIds.png',
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        img_suffix='_rgb_anon.png',
        seg_map_suffix='_gt_labelTrainIds.png',
    ),
)
test_dataloader = val_dataloader
