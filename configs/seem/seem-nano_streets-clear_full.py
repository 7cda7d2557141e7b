# Second stage of seem-nano's pre-training: whole images instead of crops, from the weights of
# the first.
#   python tools/train.py configs/seem/seem-nano_streets-clear_full.py
# The weights end up in work_dirs/seem-nano_streets-clear_full/seem-nano_streets.safetensors.
_base_ = './seem-nano_streets-clear.py'

model = dict(base='work_dirs/seem-nano_streets-clear/seem-nano_streets.safetensors')

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes={{_base_.thing_classes}}),
    dict(
        type='RandomResize',
        scale=(512, 256),
        ratio_range=(1.0, 1.25),
        keep_ratio=True,
        resize_type='mmseg.Resize',
    ),
    dict(type='mmseg.RandomCrop', crop_size=(256, 512), cat_max_ratio=0.9),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='PackPanopticInputs', thing_classes={{_base_.thing_classes}}, min_area=16),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_iters = 600
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=30, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=300)
custom_hooks = [
    dict(
        type='ExportBaseHook',
        out='seem-nano_streets.safetensors',
        interval=300,
        record=dict(config='configs/seem/seem-nano_streets-clear_full.py'),
        data_record={{_base_.data_record}},
    ),
]
