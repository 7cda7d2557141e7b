# SPM on Vaihingen, Table 3 of the paper: frozen ResNet-101, PPM head.
#   python tools/train.py configs/spm/spm_r101_psp_vaihingen.py
# M_0 first, once per data set:
#   python tools/class_prior.py configs/spm/spm_r101_psp_vaihingen.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_r101_psp.py',
    '../_base_/datasets/vaihingen.py',
    '../_base_/schedules/spm_80k.py',
]
num_classes = 6
model = dict(
    classes={{_base_.class_names}},
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(num_classes=num_classes, class_prior={{_base_.class_prior}}),
    decode_head=dict(num_classes=num_classes),
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=5_170_526, head=23_076_870),
        head=dict(backbone=0, prompt=0, head=23_076_870),
        full=dict(backbone=42_519_392, prompt=0, head=23_076_870),
        scratch=dict(backbone=42_519_392, prompt=0, head=23_076_870),
    ),
    paper_parameters=dict(
        spm=dict(backbone=0, prompt=2.22, head=23.07),
        head=dict(backbone=0, prompt=0, head=23.07),
        full=dict(backbone=42.41, prompt=0, head=23.07),
        scratch=dict(backbone=42.41, prompt=0, head=23.07),
    ),
)
default_hooks = dict(checkpoint=dict(interval=8000))
