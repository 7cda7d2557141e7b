# Cityscapes in its official folders. docs/datasets.md says where to get it;
# MMSegmentation's tools/dataset_converters/cityscapes.py makes the labelTrainIds.
#   python tools/make_few_shot_split.py configs/ssprompt/focal-t_cityscapes_16shot.py
_base_ = ['./short-side-512.py', './street-classes.py']
dataset_type = 'mmseg.CityscapesDataset'
data_root = '{{$MMPROMPT_DATA:data}}/cityscapes'
manifest = '{{$MMPROMPT_DATA:data}}/cityscapes/16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    ),
)
test_dataloader = val_dataloader
