# CoOp's own recipe: SGD 0.002, weight decay 5e-4, one warm-up epoch at 1e-5, then a cosine; batches
# of 32, 200 epochs for 16 shots. Counted in steps, for the 41 images of 16 shots in fog: 200 * 41 /
# 32 = 256. A leaf for another set gives its own number of steps. The batch size is the leaf's too.
max_iters = 256
warm_up = 2
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=2e-3, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    # mmengine gives the factor back on the last step before `end`.
    dict(type='ConstantLR', factor=5e-3, begin=0, end=warm_up + 1, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=warm_up, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0)
