# PASCAL Context's 59 classes in the folders of VOC2010; docs/datasets.md says where to get it and
# which command makes the labels.
#   python tools/make_few_shot_split.py configs/_base_/datasets/pascal-context.py
_base_ = './short-side-512.py'
dataset_type = 'mmseg.PascalContextDataset59'
data_root = '{{$MMPROMPT_DATA:data}}/VOCdevkit/VOC2010'
manifest = '{{$MMPROMPT_DATA:data}}/VOCdevkit/VOC2010/context_16shot_seed0.json'
# The data set's own names, as MMSegmentation writes them.
class_names = (
    'aeroplane', 'bag', 'bed', 'bedclothes', 'bench', 'bicycle', 'bird', 'boat', 'book', 'bottle',
    'building', 'bus', 'cabinet', 'car', 'cat', 'ceiling', 'chair', 'cloth', 'computer', 'cow',
    'cup', 'curtain', 'dog', 'door', 'fence', 'floor', 'flower', 'food', 'grass', 'ground', 'horse',
    'keyboard', 'light', 'motorbike', 'mountain', 'mouse', 'person', 'plate', 'platform',
    'pottedplant', 'road', 'rock', 'sheep', 'shelves', 'sidewalk', 'sign', 'sky', 'snow', 'sofa',
    'table', 'track', 'train', 'tree', 'truck', 'tvmonitor', 'wall', 'water', 'window', 'wood',
)  # fmt: skip
# For the text encoder.
class_texts = tuple(
    dict(pottedplant='potted plant', tvmonitor='tv monitor').get(name, name) for name in class_names
)
# PASCAL Context has no official split into things and stuff. These are the 20 classes of PASCAL
# VOC, for which VOC2010 has boxes; a VOC dining table is a table here.
thing_names = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'table', 'train', 'tvmonitor',
)  # fmt: skip
thing_classes = tuple(i for i, name in enumerate(class_names) if name in thing_names)

train_dataloader = dict(
    dataset=dict(
        manifest=manifest,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
            ann_file='ImageSets/SegmentationContext/train.txt',
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
    ),
)
test_dataloader = val_dataloader
