# SPM on ADE20K, Table 9 of the paper: frozen ViT-L, three matchers (3 stages), PUP head.
#   python tools/train.py configs/spm/spm_vit-l_pup_ade20k.py
# Weights: https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/
# jx_vit_large_p16_384-b3be5167.pth, renamed by MMSegmentation's
# tools/model_converters/vit2mmseg.py to weights/vit_large_p16_384.pth.
# M_0 first: python tools/class_prior.py configs/spm/spm_vit-l_pup_ade20k.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch, vpt,
# adaptformer, lora).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_vit-l_pup.py',
    '../_base_/datasets/ade20k_full.py',
    '../_base_/schedules/spm_80k.py',
]
model = dict(
    classes={{_base_.class_names}},
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(class_prior={{_base_.class_prior}}),
    test_cfg={{_base_.slide}},
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=3_995_586, head=13_143_640),
        head=dict(backbone=0, prompt=0, head=13_143_640),
        full=dict(backbone=304_147_456, prompt=0, head=13_143_640),
        scratch=dict(backbone=304_147_456, prompt=0, head=13_143_640),
        vpt=dict(backbone=0, prompt=1_228_800, head=13_143_640),
        adaptformer=dict(backbone=0, prompt=3_171_840, head=13_143_640),
        lora=dict(backbone=0, prompt=786_432, head=13_143_640),
    ),
    paper_parameters=dict(
        spm=dict(backbone=0, prompt=1.76, head=13.14),
        head=dict(backbone=0, prompt=0, head=13.14),
        full=dict(backbone=304.15, prompt=0, head=13.14),
    ),
)
train_dataloader = dict(batch_size=8)
default_hooks = dict(checkpoint=dict(interval=8000))
