# Mapillary Vistas with the labels of v1.2, read as the 19 classes of Cityscapes; docs/datasets.md
# says where to get it and which class becomes which.
#   python tools/make_few_shot_split.py configs/_base_/datasets/mapillary.py
_base_ = ['./short-side-512.py', './street-classes.py']
dataset_type = 'Mapillary19Dataset'
data_root = '{{$MMPROMPT_DATA:data}}/mapillary'
manifest = '{{$MMPROMPT_DATA:data}}/mapillary/16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(img_path='training/images', seg_map_path='training/v1.2/labels'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='validation/images', seg_map_path='validation/v1.2/labels'),
    ),
)
test_dataloader = val_dataloader
