# SPM on STARE, Table 4 of the paper: frozen ResNet-101, PUP head.
#   python tools/train.py configs/spm/spm_r101_pup_stare.py
# M_0 first, once per data set:
#   python tools/class_prior.py configs/spm/spm_r101_pup_stare.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_r101_pup.py',
    '../_base_/datasets/stare.py',
    '../_base_/schedules/spm_40k.py',
]
num_classes = 2
model = dict(
    classes={{_base_.class_names}},
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(num_classes=num_classes, class_prior={{_base_.class_prior}}),
    decode_head=dict(num_classes=num_classes),
    test_cfg={{_base_.slide}},
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=5_155_146, head=5_904_386),
        head=dict(backbone=0, prompt=0, head=5_904_386),
        full=dict(backbone=42_519_392, prompt=0, head=5_904_386),
        scratch=dict(backbone=42_519_392, prompt=0, head=5_904_386),
    ),
    paper_parameters=dict(
        spm=dict(backbone=0, prompt=2.54, head=5.90),
        head=dict(backbone=0, prompt=0, head=5.90),
        full=dict(backbone=42.41, prompt=0, head=5.90),
        scratch=dict(backbone=42.41, prompt=0, head=5.90),
    ),
)
default_hooks = dict(checkpoint=dict(interval=4000))
