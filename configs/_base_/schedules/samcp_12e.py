# 12 epochs of COCO's 118,287 training images at 16 a step, on one GPU or divided among several.
# With another batch size, change the number of steps so that there are still 12 epochs:
#   --cfg-options train_dataloader.batch_size=B train_cfg.max_iters=N \
#       param_scheduler.0.milestones="[M]" param_scheduler.0.end=N
steps_per_epoch = 7393
max_iters = 12 * steps_per_epoch
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[8 * steps_per_epoch],
        gamma=0.1,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=steps_per_epoch)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0)
