# SAM-CP on ADE20K, ResNet-50, 160,000 steps, in all three tasks.
# The paper: PQ 38.5, box AP 28.7, AP 25.1, mIoU 42.4 (Table 2).
# Patches first, for --split train and val, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_ade20k.py --generator sam --split train
# Then
#   python tools/train.py configs/samcp/samcp_r50_ade20k_160k.py
# Class names are encoded by CLIP's text encoder (open_clip) at the first start, or are read from
# an array of them: --cfg-options model.head.text=FILE.npy
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_r50.py',
    '../_base_/datasets/samcp_ade20k.py',
    '../_base_/schedules/samcp_160k.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_texts}}),
        # Loss weight and matching cost of classes are 4 here, and 2 on COCO (B.2).
        loss=dict(cls_weight=4.0, assigner=dict(cls=4.0)),
    ),
)
default_hooks = dict(checkpoint=dict(interval=1000))
