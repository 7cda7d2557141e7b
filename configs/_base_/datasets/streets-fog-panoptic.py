# Streets in fog with instances, and the metrics of all three tasks.
_base_ = './streets-fog.py'
thing_classes = (11, 12, 13, 14, 15, 16, 17, 18)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs', thing_classes=thing_classes),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='PackPanopticInputs', thing_classes=thing_classes),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = [
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
    dict(type='PanopticQuality', thing_classes=thing_classes),
    dict(type='InstanceAP'),
]
test_evaluator = val_evaluator
# What the metrics read; thresholds as in the pre-training of SEEM-nano.
all_results = dict(
    mode='whole', panoptic=True, instances=True, score_threshold=0.4, overlap_threshold=0.6
)
