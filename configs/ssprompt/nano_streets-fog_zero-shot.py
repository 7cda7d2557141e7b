# The frozen model with its own prompts (zero-shot, the first row of Table 5) in fog.
#   python tools/test.py configs/ssprompt/nano_streets-fog_zero-shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=0,
    decode_head=dict(
        spatial_prompt=dict(_delete_=True, type='DefaultPrompt'),
        semantic_prompt=dict(_delete_=True, type='DefaultPrompt'),
    ),
)
# Nothing is trained.
train_dataloader = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
