# The zero-shot model when object queries attend to a grid of points: the first row for _grid.
#   python tools/test.py configs/ssprompt/nano_streets-fog_zero-shot_grid.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=0,
    decode_head=dict(
        decoder=dict(object_tokens=True),
        spatial_prompt=dict(_delete_=True, type='DefaultPrompt', source='grid'),
        semantic_prompt=dict(_delete_=True, type='DefaultPrompt'),
    ),
)
# Nothing is trained.
train_dataloader = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
