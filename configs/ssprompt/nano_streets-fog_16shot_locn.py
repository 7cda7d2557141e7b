# LOCN: one word vector in place of each class name, in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_locn.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(method='locn', classes={{_base_.class_names}}, expected_parameters=dict(locn=1_216))
# Chosen on validation images, see docs/results.md.
optim_wrapper = dict(optimizer=dict(lr=3e-3))
