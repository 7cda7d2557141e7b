# ACDC's images taken in snow; see acdc.py.
#   python tools/make_few_shot_split.py configs/_base_/datasets/acdc-snow.py
_base_ = './acdc.py'
manifest = '{{$MMPROMPT_DATA:data}}/acdc/snow_16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            data_prefix=dict(img_path='rgb_anon/snow/train', seg_map_path='gt/snow/train'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/snow/val', seg_map_path='gt/snow/val')),
)
test_dataloader = val_dataloader
