# CoOp from "a photo of a": 4 shared context vectors, in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_coop-m4.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(
    method='coop-m4',
    classes={{_base_.class_names}},
    expected_parameters=dict({'coop-m4': 256}),
)
# Chosen on validation images, see docs/results.md.
optim_wrapper = dict(optimizer=dict(lr=3e-3))
