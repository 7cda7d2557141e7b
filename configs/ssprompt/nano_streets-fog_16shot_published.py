# SSPrompt by the paper's own recipe, many small steps, in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_published.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=9_639)
train_dataloader = dict(batch_size=2)
