# ACDC's images taken in rain; see acdc.py.
#   python tools/make_few_shot_split.py configs/_base_/datasets/acdc-rain.py
_base_ = './acdc.py'
manifest = '{{$MMPROMPT_DATA:data}}/acdc/rain_16shot_seed0.json'

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            data_prefix=dict(img_path='rgb_anon/rain/train', seg_map_path='gt/rain/train'),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/rain/val', seg_map_path='gt/rain/val')),
)
test_dataloader = val_dataloader
