# SSPrompt (spatial and semantic, Eq. 8) from 4 images per class in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_4shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=9_639))
train_dataloader = dict(dataset=dict(manifest=None, k=4))
