# SAM-CP on COCO panoptic, Swin-L, 36 epochs, in all three tasks.
# The paper: PQ 52.7, box AP 50.4, AP 45.2, mIoU 61.8 (Table 2).
# Patches first, for --split train and val, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_coco-panoptic.py --generator sam --split train
# Then
#   python tools/train.py configs/samcp/samcp_swin-l_coco-panoptic_36e.py
# Class names are encoded by CLIP's text encoder (open_clip) at the first start, or are read from
# an array of them: --cfg-options model.head.text=FILE.npy
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_swin-l.py',
    '../_base_/datasets/samcp_coco-panoptic.py',
    '../_base_/schedules/samcp_36e.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_texts}}),
    ),
)
default_hooks = dict(checkpoint=dict(interval=1000))
