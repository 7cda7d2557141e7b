# Cityscapes with instances (the instanceIds of gtFine), and the metrics of all three tasks.
_base_ = './cityscapes.py'
thing_classes = (11, 12, 13, 14, 15, 16, 17, 18)

# The long side is bounded by the larger number, which no image reaches.
scale = (65536, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotationsByTable'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs', thing_classes=thing_classes),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsByTable'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='PackPanopticInputs', thing_classes=thing_classes),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
    dict(type='PanopticQuality', thing_classes=thing_classes),
    dict(type='InstanceAP'),
]
test_evaluator = val_evaluator
# What the metrics read.
all_results = dict(mode='whole', panoptic=True, instances=True)
