# Pre-trains SEEM's decoders on CamVid's day clips over a frozen ImageNet ResNet-50:
#   python tools/train.py configs/seem/seem-r50_camvid-day.py
# The weights end up in work_dirs/seem-r50_camvid-day/seem-r50_camvid-day.safetensors. Both views of
# each image (plain and flipped) pass the backbone once; their maps stay in memory (3 GiB).
_base_ = [
    '../_base_/models/seem-r50.py',
    '../_base_/datasets/camvid-day.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='SEEMPretrainer',
    seem={{_base_.seem}},
    data_preprocessor={{_base_.data_preprocessor}},
    classes={{_base_.class_texts}},
    frozen=('backbone',),
    feature_cache=dict(root=None, memory_gb=6.0),
    criterion=dict(grid='native', matcher=dict(grid=(24, 32)), dense_weight=2.0, dense_loss='nll'),
)

max_iters = 600
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 0.99)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(
        type='ExportBaseHook',
        out='seem-r50_camvid-day.safetensors',
        interval=300,
        record=dict(config='configs/seem/seem-r50_camvid-day.py'),
    ),
]
randomness = dict(seed=0)
