# SSPrompt (spatial and semantic, Eq. 8) from 16 images per class of CamVid's day clips, where its
# base was fine-tuned.
#   python tools/train.py configs/ssprompt/nano_camvid-day_16shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano_camvid.py',
    '../_base_/datasets/camvid-day_few-shot.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=8_991))
