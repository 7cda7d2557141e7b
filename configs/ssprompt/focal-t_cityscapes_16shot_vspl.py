# VSPL: the coordinates of a 10x10 grid of points (Table 8); Focal-T, Cityscapes.
#   python tools/train.py configs/ssprompt/focal-t_cityscapes_16shot_vspl.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(method='vspl', classes={{_base_.class_names}}, expected_parameters=dict(vspl=200))
