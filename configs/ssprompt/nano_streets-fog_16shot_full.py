# Full tuning: everything but the text tower is trained, in fog. No cache: features change.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_full.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_tune-full.py',
    '../_base_/default_runtime.py',
]
model = dict(
    method='full', classes={{_base_.class_names}}, expected_parameters=dict(full=1_715_449)
)
