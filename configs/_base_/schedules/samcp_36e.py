# As samcp_12e.py for 36 epochs, which is what the paper's Table 2 has.
_base_ = './samcp_12e.py'
steps_per_epoch = 7393
max_iters = 36 * steps_per_epoch
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[24 * steps_per_epoch],
        gamma=0.1,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters, val_interval=2 * steps_per_epoch)
