# ACDC's images taken at night; see acdc.py.
#   python tools/make_few_shot_split.py configs/_base_/datasets/acdc-night.py
_base_ = './acdc.py'
manifest = '{{$MMPROMPT_DATA:data}}/acdc/night_16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            data_prefix=dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/night/val', seg_map_path='gt/night/val')),
)
test_dataloader = val_dataloader
