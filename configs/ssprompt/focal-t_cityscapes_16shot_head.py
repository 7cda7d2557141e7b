# Head tuning: what turns queries into classes and masks is trained; Focal-T, Cityscapes.
#   python tools/train.py configs/ssprompt/focal-t_cityscapes_16shot_head.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(
    method='head', classes={{_base_.class_names}}, expected_parameters=dict(head=1_051_136)
)
