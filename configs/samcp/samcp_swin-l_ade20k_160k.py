# SAM-CP on ADE20K, Swin-L, 160,000 steps, in all three tasks.
# The paper: PQ 44.4, box AP 34.6, AP 30.3, mIoU 49.4 (Table 2).
# Patches first, for --split train and val, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_ade20k.py --generator sam --split train
# Then
#   python tools/train.py configs/samcp/samcp_swin-l_ade20k_160k.py
# Class names are encoded by CLIP's text encoder (open_clip) at the first start, or are read from
# an array of them: --cfg-options model.head.text=FILE.npy
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_swin-l.py',
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
