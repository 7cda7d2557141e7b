# CoOp: 16 shared context vectors before each class name, in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_coop.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(method='coop', classes={{_base_.class_names}}, expected_parameters=dict(coop=1_024))
# Chosen on validation images, see docs/results.md.
optim_wrapper = dict(optimizer=dict(lr=3e-3))
