# Head tuning: what turns queries into classes and masks is trained, in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_head.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_tune-head.py',
    '../_base_/default_runtime.py',
]
model = dict(method='head', classes={{_base_.class_names}}, expected_parameters=dict(head=26_000))
