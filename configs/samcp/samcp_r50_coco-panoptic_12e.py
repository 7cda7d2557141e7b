# SAM-CP on COCO panoptic, ResNet-50, 12 epochs, in all three tasks.
# The paper: PQ 47.0, box AP 45.8, AP 41.4, mIoU 54.2 (Tables 3 to 5 and 12).
# Patches first, for --split train and val, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_coco-panoptic.py --generator sam --split train
# Then
#   python tools/train.py configs/samcp/samcp_r50_coco-panoptic_12e.py
# Class names are encoded by CLIP's text encoder (open_clip) at the first start, or are read from
# an array of them: --cfg-options model.head.text=FILE.npy
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_r50.py',
    '../_base_/datasets/samcp_coco-panoptic.py',
    '../_base_/schedules/samcp_12e.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_texts}}),
    ),
)
default_hooks = dict(checkpoint=dict(interval=1000))
