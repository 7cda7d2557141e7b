# SPM on ADE20K, Tables 2, 6 and 7 (ImageNet) of the paper: frozen ResNet-101, PPM head.
#   python tools/train.py configs/spm/spm_r101_psp_ade20k.py
# M_0 first, once per data set:
#   python tools/class_prior.py configs/spm/spm_r101_psp_ade20k.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch).
# Rows of Table 6 (places) and Table 7, by --cfg-options:
#   model.backbone.prompt_at="['layer1','layer2']" model.expected_parameters.spm.prompt=1334892 \
#     model.paper_parameters.spm.prompt=1.07
#   model.interim_weights=0
#   model.backbone.prompter.context=conv3x3 model.expected_parameters.spm.prompt=9487406 \
#     model.paper_parameters=None
# docs/spm.md lists all of them.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_r101_psp.py',
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
        spm=dict(backbone=0, prompt=5_724_206, head=23_150_742),
        head=dict(backbone=0, prompt=0, head=23_150_742),
        full=dict(backbone=42_519_392, prompt=0, head=23_150_742),
        scratch=dict(backbone=42_519_392, prompt=0, head=23_150_742),
    ),
    paper_parameters=dict(
        spm=dict(backbone=0, prompt=3.11, head=23.15),
        head=dict(backbone=0, prompt=0, head=23.15),
        full=dict(backbone=42.41, prompt=0, head=23.15),
        scratch=dict(backbone=42.41, prompt=0, head=23.15),
    ),
)
default_hooks = dict(checkpoint=dict(interval=8000))
