# SPM on CHASE-DB1, the small run of docs/results.md: frozen ImageNet ResNet-50 at output stride 16,
# PUP head, crops of 192, 2 images a step.
#   python tools/train.py configs/spm/spm_r50_pup_chase-db1.py
# The other arms: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_r50-caffe_pup.py',
    '../_base_/datasets/chase-db1_folder.py',
    '../_base_/schedules/spm_few-steps.py',
]
model = dict(
    classes={{_base_.class_names}},
    backbone=dict(class_prior={{_base_.class_frequencies}}),
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=5_155_146, head=5_904_386),
        head=dict(backbone=0, prompt=0, head=5_904_386),
        full=dict(backbone=23_508_032, prompt=0, head=5_904_386),
        scratch=dict(backbone=23_508_032, prompt=0, head=5_904_386),
    ),
)
default_hooks = dict(checkpoint=dict(interval=100))
