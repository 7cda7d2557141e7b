# A few hundred steps of AdamW, poly 0.9. With the SGD of the published schedules (spm_40k.py) no
# way of tuning leaves the background in so few. Another number of steps:
#   --cfg-options train_cfg.max_iters=N train_cfg.val_interval=N param_scheduler.0.end=N
max_iters = 300
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0)
