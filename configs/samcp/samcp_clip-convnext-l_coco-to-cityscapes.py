# COCO to Cityscapes, at 2048x1024: measures on its 19 classes what was trained on COCO panoptic.
# The paper: AP 29.3, PQ 41.0, mIoU 47.9 in Table 1; PQ 40.6 and mIoU 47.5 in its text.
# Patches are found in crops along the long side (B.3), as the generator does with wide images.
# Patches first, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_cityscapes.py --generator sam --split val
# Then, with the head that was trained on the other data set,
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_coco-to-cityscapes.py \
#       work_dirs/samcp_clip-convnext-l_coco-panoptic_12e/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_cityscapes.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        # All names of a class; its score is that of the one that fits best.
        text=dict(names='{{ fileDirname }}/../_base_/class_names/cityscapes.txt'),
    ),
)
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')
