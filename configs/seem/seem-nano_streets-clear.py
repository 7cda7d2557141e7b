# Pre-trains SEEM-nano, text encoder included, on clear street scenes; CPU, one process:
#   python tools/train.py configs/seem/seem-nano_streets-clear.py
# To measure a base file (or a checkpoint, named after the config):
#   python tools/test.py configs/seem/seem-nano_streets-clear.py \
#       --cfg-options model.base=mmprompt://seem-nano_streets
# The weights end up in work_dirs/seem-nano_streets-clear/seem-nano_streets.safetensors.
_base_ = [
    '../_base_/models/seem-nano.py',
    '../_base_/datasets/streets.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='SEEMPretrainer',
    seem={{_base_.seem}},
    classes={{_base_.class_synonyms}},
    thing_classes={{_base_.thing_classes}},
    stroke_prob=0.15,
    # All mask losses on the cells of the stride-4 maps: at this crop a third of the cost of points.
    criterion=dict(
        grid='native',
        matcher=dict(grid=(24, 48)),
        num_aux=4,
        dense_weight=2.0,
        dense_loss='nll',
    ),
    base=None,
    test_cfg=dict(panoptic=True, instances=True, score_threshold=0.4, overlap_threshold=0.6),
)

max_iters = 8000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=8e-4, weight_decay=0.05, betas=(0.9, 0.99)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=200, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=200, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
test_evaluator = [
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
    dict(type='PanopticQuality', thing_classes={{_base_.thing_classes}}),
    dict(type='InstanceAP'),
]
custom_hooks = [
    dict(
        type='ExportBaseHook',
        out='seem-nano_streets.safetensors',
        interval=500,
        record=dict(config='configs/seem/seem-nano_streets-clear.py'),
        data_record={{_base_.data_record}},
    ),
]
randomness = dict(seed=0)
