# About 100 epochs of Pascal-Part at 32 images a step, which are 4 on each of 8 GPUs; the paper does
# not say how long it trains there.
_base_ = './samcp_12e.py'
max_iters = 14_000
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[11_000],
        gamma=0.1,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters, val_interval=2000)
