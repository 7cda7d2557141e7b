# Fine-tunes seem-nano, all of it, on CamVid's day clips: the other candidate for a CamVid base.
#   python tools/train.py configs/seem/seem-nano_camvid-day.py
# The weights end up in work_dirs/seem-nano_camvid-day/seem-nano_camvid-day.safetensors.
_base_ = [
    '../_base_/models/seem-nano.py',
    '../_base_/datasets/camvid-day.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='SEEMPretrainer',
    seem={{_base_.seem}},
    base='mmprompt://seem-nano_streets',
    classes={{_base_.class_texts}},
    criterion=dict(
        grid='native', matcher=dict(grid=(24, 32)), num_aux=4, dense_weight=2.0, dense_loss='nll'
    ),
)

max_iters = 600
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05, betas=(0.9, 0.99)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(
        type='ExportBaseHook',
        out='seem-nano_camvid-day.safetensors',
        interval=300,
        record=dict(config='configs/seem/seem-nano_camvid-day.py'),
    ),
]
randomness = dict(seed=0)
