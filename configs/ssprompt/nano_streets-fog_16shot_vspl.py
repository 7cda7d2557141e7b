# VSPL: the coordinates of a 10x10 grid of points (Table 8), in fog. Its zero-shot row is that of
# nano_streets-fog_zero-shot_grid.py.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_vspl.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(method='vspl', classes={{_base_.class_names}}, expected_parameters=dict(vspl=200))
