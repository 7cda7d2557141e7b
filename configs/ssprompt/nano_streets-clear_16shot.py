# SSPrompt (spatial and semantic, Eq. 8) from 16 images per class in clear weather, where SEEM-nano
# was pre-trained.
#   python tools/train.py configs/ssprompt/nano_streets-clear_16shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-clear.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=9_639))
