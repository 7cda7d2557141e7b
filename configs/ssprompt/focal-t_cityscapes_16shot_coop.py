# CoOp: 16 shared context vectors before each class name; Focal-T, Cityscapes.
#   python tools/train.py configs/ssprompt/focal-t_cityscapes_16shot_coop.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(method='coop', classes={{_base_.class_names}}, expected_parameters=dict(coop=8_192))
