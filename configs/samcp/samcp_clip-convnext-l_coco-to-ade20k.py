# COCO to ADE20K: measures on its 150 classes what was trained on COCO panoptic.
# The paper: PQ 27.2, SQ 77.7, RQ 32.9, PQ of things 27.0 and of stuff 27.7, AP 17.0, mIoU 31.8
# (Tables 1 and 6).
# Patches first, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_ade20k.py --generator sam --split val
# Then, with the head that was trained on the other data set,
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_coco-to-ade20k.py \
#       work_dirs/samcp_clip-convnext-l_coco-panoptic_12e/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_ade20k.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        # All names of a class; its score is that of the one that fits best.
        text=dict(names='{{ fileDirname }}/../_base_/class_names/ade20k.txt'),
    ),
)
train_dataloader = None
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')
