# The frozen SEEM-nano with its own prompts in fog: zero-shot instance segmentation, measured in all
# three tasks.
#   python tools/test.py configs/ssprompt/nano_streets-fog-instance_zero-shot.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/models/ssprompt_zero-shot.py',
    '../_base_/datasets/streets-fog-panoptic.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=0,
    decode_head=dict(
        task='instance',
        thing_classes={{_base_.thing_classes}},
        spatial_prompt=dict(_delete_=True, type='DefaultPrompt'),
        semantic_prompt=dict(_delete_=True, type='DefaultPrompt'),
    ),
    test_cfg={{_base_.all_results}},
)
# Nothing is trained.
train_dataloader = None
