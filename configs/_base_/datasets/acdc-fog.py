# ACDC's images taken in fog; see acdc.py.
#   python tools/make_few_shot_split.py configs/_base_/datasets/acdc-fog.py
_base_ = './acdc.py'
manifest = '{{$MMPROMPT_DATA:data}}/acdc/fog_16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            data_prefix=dict(img_path='rgb_anon/fog/train', seg_map_path='gt/fog/train'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/fog/val', seg_map_path='gt/fog/val')),
)
test_dataloader = val_dataloader
