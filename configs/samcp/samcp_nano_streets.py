# SAM-CP in small, which needs neither a download nor a GPU: Felzenszwalb's patches on streets, the
# frozen backbone of the SEEM-nano in the package, class names by its text encoder; all three tasks.
# The run of docs/results.md. The scenes first:
#   python tools/make_streets.py --out data/streets/clear --condition clear --split train --num 500
#   python tools/make_streets.py --out data/streets/clear --condition clear --split val --num 100
#   python tools/make_streets.py --out data/streets/clear --condition clear --split test --num 60
# then their patches, for each of --split train, val and test, and what these can become:
#   python tools/generate_patches.py configs/_base_/datasets/samcp_streets.py \
#       --generator felzenszwalb --split train
#   python tools/patch_stats.py configs/samcp/samcp_nano_streets.py --split test --floors
# and then
#   python tools/train.py configs/samcp/samcp_nano_streets.py
#   python tools/test.py configs/samcp/samcp_nano_streets.py \
#       work_dirs/samcp_nano_streets/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_nano.py',
    '../_base_/datasets/samcp_streets.py',
    '../_base_/schedules/samcp_few-steps.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(thing_classes={{_base_.thing_classes}}),
)
# One image a step: by seconds, the head learns about twice as fast as from four.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
max_iters = 6000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=400, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=400, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=200))
