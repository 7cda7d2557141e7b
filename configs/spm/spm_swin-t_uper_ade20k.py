# SPM on ADE20K with a Transformer in stages: frozen Swin-T, UPerNet head; not in the paper. SGD
# suits matchers and head; full tuning of a Swin wants MMSegmentation's recipe of AdamW at 6e-5.
#   python tools/train.py configs/spm/spm_swin-t_uper_ade20k.py
# M_0 first, once per data set:
#   python tools/class_prior.py configs/spm/spm_swin-t_uper_ade20k.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_swin-t_uper.py',
    '../_base_/datasets/ade20k_full.py',
    '../_base_/schedules/spm_80k.py',
]
num_classes = 150
model = dict(
    classes={{_base_.class_names}},
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(num_classes=num_classes, class_prior={{_base_.class_prior}}),
    decode_head=dict(num_classes=num_classes),
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=4_419_982, head=31_497_366),
        head=dict(backbone=0, prompt=0, head=31_497_366),
        full=dict(backbone=27_520_698, prompt=0, head=31_497_366),
        scratch=dict(backbone=27_520_698, prompt=0, head=31_497_366),
    ),
)
default_hooks = dict(checkpoint=dict(interval=8000))
