# SAM-CP on COCO panoptic, ResNet-50, 36 epochs, with Mask DINO's masks among SAM's patches.
# The paper: PQ 51.4, box AP 51.6, AP 45.8, mIoU 57.3 (Table 7).
# SAM's patches first, as samcp_r50_coco-panoptic_36e.py says; then those of Mask DINO, whose
# results on each split are a list of dict(image_id=…, segmentation=RLE) in JSON, with or without
# scores and labels, which are not used. For --split train and val:
#   python tools/import_patches.py configs/_base_/datasets/samcp_coco-panoptic.py --split train \
#       --source patches=data/patches/samcp_coco-panoptic_train_sam.db \
#       coco=data/mask_dino/train2017.json \
#       --out data/patches/samcp_coco-panoptic_train_sam+mask-dino.db
# Then
#   python tools/train.py configs/samcp/samcp_r50_coco-panoptic_36e_mask-dino.py
_base_ = './samcp_r50_coco-panoptic_36e.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store='data/patches/samcp_coco-panoptic_train_sam+mask-dino.db'),
    dict(type='LoadAnnotationsFromCocoPanoptic'),
    dict(type='LoadUnits', keep_truth=False),
    dict(type='DetRandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [{{_base_.resize}}],
            [{{_base_.resize_first}}, {{_base_.crop}}, {{_base_.resize}}],
        ],
    ),
    dict(type='PackPatchInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store='data/patches/samcp_coco-panoptic_val_sam+mask-dino.db'),
    dict(type='DetResize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotationsFromCocoPanoptic'),
    dict(
        type='LoadCocoInstances',
        ann_file='{{$MMPROMPT_DATA:data}}/coco/annotations/instances_val2017.json',
        classes={{_base_.class_names}},
    ),
    dict(type='LoadUnits'),
    dict(type='PackPatchInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
