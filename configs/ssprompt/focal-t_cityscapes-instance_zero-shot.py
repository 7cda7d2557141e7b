# The public SEEM (Focal-T) with its own prompts on Cityscapes: zero-shot instance segmentation,
# measured in all three tasks. Weights as for focal-t_cityscapes_16shot.py.
#   python tools/test.py configs/ssprompt/focal-t_cityscapes-instance_zero-shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/models/ssprompt_zero-shot.py',
    '../_base_/datasets/cityscapes-panoptic.py',
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
