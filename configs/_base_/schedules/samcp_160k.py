# As samcp_12e.py for 160,000 steps, the paper's for ADE20K (128 epochs of 16 images a step).
_base_ = './samcp_12e.py'
max_iters = 160_000
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[135_000],
        gamma=0.1,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters, val_interval=8000)
