# SPM on ADE20K, Table 8 of the paper: frozen ResNet-50, PPM head.
#   python tools/train.py configs/spm/spm_r50_psp_ade20k.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = './spm_r101_psp_ade20k.py'
model = dict(
    backbone=dict(
        backbone=dict(depth=50, init_cfg=dict(checkpoint='open-mmlab://resnet50_v1c')),
    ),
    expected_parameters=dict(full=dict(backbone=23_527_264), scratch=dict(backbone=23_527_264)),
    paper_parameters=dict(full=dict(backbone=23.47), scratch=dict(backbone=23.47)),
)
