# SemPrompt alone (Eq. 6, Table 5) from 16 images per class of CamVid's dusk clip.
#   python tools/train.py configs/ssprompt/r50_camvid-dusk_16shot_semprompt.py
_base_ = [
    '../_base_/models/ssprompt_seem-r50.py',
    '../_base_/datasets/camvid-dusk.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(semprompt=1_419),
    decode_head=dict(spatial_prompt=dict(_delete_=True, type='DefaultPrompt')),
)
