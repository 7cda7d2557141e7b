# Cityscapes' validation images at their own 2048x1024 pixels, for evaluation; docs/datasets.md says
# where to get them. Patches are found in crops along the long side:
#   python tools/generate_patches.py configs/_base_/datasets/samcp_cityscapes.py \
#       --generator sam --split val
_base_ = './street-classes.py'
dataset_type = 'mmseg.CityscapesDataset'
data_root = '{{$MMPROMPT_DATA:data}}/cityscapes'
thing_classes = {{_base_.thing_classes}}
val_patches = 'data/patches/samcp_cityscapes_val_sam.db'
max_patches = None

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    dict(type='DetResize', scale=(2048, 1024), keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsByTable'),
    dict(type='LoadCityscapesPanoptic', thing_classes=thing_classes),
    dict(type='LoadUnits', thing_classes=thing_classes),
    dict(type='PackPatchInputs', thing_classes=thing_classes),
]
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='PanopticQuality', thing_classes=thing_classes),
    dict(type='InstanceAP', boxes=True),
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
