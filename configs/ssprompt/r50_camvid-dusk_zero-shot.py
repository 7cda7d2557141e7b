# The frozen day model with its own prompts (zero-shot) on CamVid's dusk clip.
#   python tools/test.py configs/ssprompt/r50_camvid-dusk_zero-shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-r50.py',
    '../_base_/datasets/camvid-dusk.py',
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
