# SSPrompt (spatial and semantic, Eq. 8) from 16 images per class of CamVid's dusk clip.
#   python tools/train.py configs/ssprompt/nano_camvid-dusk_16shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano_camvid.py',
    '../_base_/datasets/camvid-dusk.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=8_991))
