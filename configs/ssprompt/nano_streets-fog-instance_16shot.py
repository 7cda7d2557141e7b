# SSPrompt for instance segmentation from 16 images per class in fog; measured in all three tasks.
#   python tools/train.py configs/ssprompt/nano_streets-fog-instance_16shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog-panoptic.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(ssprompt=9_639),
    decode_head=dict(task='instance', thing_classes={{_base_.thing_classes}}),
    test_cfg={{_base_.all_results}},
)
