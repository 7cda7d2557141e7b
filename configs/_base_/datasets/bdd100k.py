# BDD100K's 10k images with semantic labels, in the official folders; docs/datasets.md says where to
# get them.
#   python tools/make_few_shot_split.py configs/_base_/datasets/bdd100k.py
_base_ = ['./short-side-512.py', './street-classes.py']
dataset_type = 'mmseg.BDD100KDataset'
data_root = '{{$MMPROMPT_DATA:data}}/bdd100k'
manifest = '{{$MMPROMPT_DATA:data}}/bdd100k/16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(
                img_path='images/10k/train', seg_map_path='labels/sem_seg/masks/train'
            ),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/10k/val', seg_map_path='labels/sem_seg/masks/val'),
    ),
)
test_dataloader = val_dataloader
