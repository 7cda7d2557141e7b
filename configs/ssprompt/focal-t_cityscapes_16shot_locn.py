# LOCN: one word vector in place of each class name; Focal-T, Cityscapes.
#   python tools/train.py configs/ssprompt/focal-t_cityscapes_16shot_locn.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(method='locn', classes={{_base_.class_names}}, expected_parameters=dict(locn=9_728))
