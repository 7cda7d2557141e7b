# ACDC's images taken in rain, in the official folders; docs/datasets.md says where to get them.
#   python tools/make_few_shot_split.py configs/_base_/datasets/acdc-rain.py
_base_ = ['./short-side-512.py', './street-classes.py']
dataset_type = 'mmseg.CityscapesDataset'
data_root = '{{$MMPROMPT_DATA:data}}/acdc'
manifest = '{{$MMPROMPT_DATA:data}}/acdc/rain_16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(img_path='rgb_anon/rain/train', seg_map_path='gt/rain/train'),
            img_suffix='_rgb_anon.png',
            seg_map_suffix='_gt_labelTrainIds.png',
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='rgb_anon/rain/val', seg_map_path='gt/rain/val'),
        img_suffix='_rgb_anon.png',
        seg_map_suffix='_gt_labelTrainIds.png',
    ),
)
test_dataloader = val_dataloader
