# SPM on CamVid, the small run of docs/results.md: frozen ImageNet ResNet-50 at output stride 16,
# PPM head, half-size frames, 4 images a step.
#   python tools/train.py configs/spm/spm_r50_psp_camvid.py
# The other arms: --cfg-options model.backbone.tuning=head (full, scratch).
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/spm_r50-caffe_psp.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/spm_few-steps.py',
]
num_classes = 11
model = dict(
    classes={{_base_.class_names}},
    backbone=dict(num_classes=num_classes, class_prior={{_base_.class_frequencies}}),
    decode_head=dict(num_classes=num_classes),
    expected_parameters=dict(
        spm=dict(backbone=0, prompt=5_189_751, head=23_079_435),
        head=dict(backbone=0, prompt=0, head=23_079_435),
        full=dict(backbone=23_508_032, prompt=0, head=23_079_435),
        scratch=dict(backbone=23_508_032, prompt=0, head=23_079_435),
    ),
)
max_iters = 200
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=100))
