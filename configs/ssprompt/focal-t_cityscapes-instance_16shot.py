# SSPrompt for instance segmentation on the public SEEM (Focal-T), Cityscapes, 16 images per class
# (Table 4), the paper's recipe; measured in all three tasks. Weights as for
# focal-t_cityscapes_16shot.py, whose set of images is used too:
#   python tools/make_few_shot_split.py configs/ssprompt/focal-t_cityscapes_16shot.py
#   python tools/train.py configs/ssprompt/focal-t_cityscapes-instance_16shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes-panoptic.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(ssprompt=61_047),
    decode_head=dict(task='instance', thing_classes={{_base_.thing_classes}}),
    test_cfg={{_base_.all_results}},
)
