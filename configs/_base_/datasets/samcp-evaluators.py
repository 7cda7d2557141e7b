# What every table of SAM-CP prints: PQ with its parts, AP of boxes and of masks, mIoU.
val_evaluator = [
    dict(type='PanopticQuality'),
    dict(type='InstanceAP', boxes=True),
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
