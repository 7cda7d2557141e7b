# Pascal-Part on the images of PASCAL VOC 2010: 93 parts of 14 kinds of objects, all of them things,
# and for models of both the 20 kinds of objects themselves. docs/datasets.md says where to get it.
#   python tools/pascal_part_to_coco.py --annotations data/pascal_part/Annotations_Part \
#       --lists data/pascal_part/VOCdevkit/VOC2010/ImageSets/Main --out data/pascal_part
# Patches, for each split (train, val):
#   python tools/generate_patches.py configs/_base_/datasets/samcp_pascal-part.py \
#       --generator sam --split train
# Masks overlap, and AP is what the paper reports; PQ and mIoU are of the map in which the smaller
# mask hides the larger.
_base_ = ['./samcp-augmentation.py', './samcp-evaluators.py']
dataset_type = 'CocoInstanceSegDataset'
data_root = '{{$MMPROMPT_DATA:data}}/pascal_part'
part_names = (
    'aeroplane:body', 'aeroplane:wing', 'aeroplane:tail', 'aeroplane:wheel', 'bicycle:wheel',
    'bicycle:handlebar', 'bicycle:saddle', 'bird:beak', 'bird:head', 'bird:eye', 'bird:leg',
    'bird:foot', 'bird:wing', 'bird:neck', 'bird:tail', 'bird:torso', 'bottle:body', 'bottle:cap',
    'bus:license plate', 'bus:headlight', 'bus:door', 'bus:mirror', 'bus:window', 'bus:wheel',
    'car:license plate', 'car:headlight', 'car:door', 'car:mirror', 'car:window', 'car:wheel',
    'cat:head', 'cat:leg', 'cat:ear', 'cat:eye', 'cat:paw', 'cat:neck', 'cat:nose', 'cat:tail',
    'cat:torso', 'cow:head', 'cow:leg', 'cow:ear', 'cow:eye', 'cow:neck', 'cow:horn', 'cow:muzzle',
    'cow:tail', 'cow:torso', 'dog:head', 'dog:leg', 'dog:ear', 'dog:eye', 'dog:paw', 'dog:neck',
    'dog:nose', 'dog:muzzle', 'dog:tail', 'dog:torso', 'horse:head', 'horse:leg', 'horse:ear',
    'horse:eye', 'horse:neck', 'horse:muzzle', 'horse:tail', 'horse:torso', 'motorbike:wheel',
    'motorbike:handlebar', 'motorbike:headlight', 'motorbike:saddle', 'person:hair', 'person:head',
    'person:ear', 'person:eye', 'person:nose', 'person:neck', 'person:mouth', 'person:arm',
    'person:hand', 'person:leg', 'person:foot', 'person:torso', 'potted plant:plant',
    'potted plant:pot', 'sheep:head', 'sheep:leg', 'sheep:ear', 'sheep:eye', 'sheep:neck',
    'sheep:horn', 'sheep:muzzle', 'sheep:tail', 'sheep:torso',
)  # fmt: skip
whole_names = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'dining table', 'dog', 'horse', 'motorbike', 'person', 'potted plant', 'sheep', 'sofa', 'train',
    'tv monitor',
)  # fmt: skip
class_names = part_names
general_names = part_names + whole_names
thing_classes = tuple(range(93))
# 'dog:head' is read as "dog head".
class_texts = tuple(name.replace(':', ' ') for name in class_names)
general_texts = tuple(name.replace(':', ' ') for name in general_names)
train_patches = 'data/patches/samcp_pascal-part_train_sam.db'
val_patches = 'data/patches/samcp_pascal-part_val_sam.db'
max_patches = None

# An eye is in a head, and a head in a dog: the region of a class is all of its masks.
units = dict(type='LoadUnits', whole_regions=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=train_patches, max_patches=max_patches),
    dict(type='LoadAnnotationsFromCocoInstances'),
    dict(units, keep_truth=False),
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
    dict(type='LoadPatches', store=val_patches, max_patches=max_patches),
    dict(type='DetResize', scale=(1333, 800), keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsFromCocoInstances'),
    units,
    dict(type='PackPatchInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img_path='VOCdevkit/VOC2010/JPEGImages'),
        metainfo=dict(classes=class_names),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img_path='VOCdevkit/VOC2010/JPEGImages'),
        metainfo=dict(classes=class_names),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
