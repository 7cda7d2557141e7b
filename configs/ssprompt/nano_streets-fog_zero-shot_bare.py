# The frozen model with bare class names, without the 81 sentences (Table 10), in fog.
#   python tools/test.py configs/ssprompt/nano_streets-fog_zero-shot_bare.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/default_runtime.py',
]
model = dict(
    method='zero-shot-bare',
    classes={{_base_.class_names}},
    expected_parameters=dict({'zero-shot-bare': 0}),
)
# Nothing is trained.
train_dataloader = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
