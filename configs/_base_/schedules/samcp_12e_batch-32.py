# As samcp_12e.py at 32 images a step, which are 4 on each of 8 GPUs.
_base_ = './samcp_12e.py'
steps_per_epoch = 3697
max_iters = 12 * steps_per_epoch
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
train_cfg = dict(max_iters=max_iters, val_interval=steps_per_epoch)
