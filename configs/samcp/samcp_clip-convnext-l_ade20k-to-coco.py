# ADE20K to COCO: measures on its 133 panoptic classes what was trained on ADE20K.
# The paper: PQ 28.6, SQ 78.4, RQ 34.5, AP 21.9, mIoU 34.3 (Table 1).
# Patches first, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_coco-panoptic.py --generator sam --split val
# Then, with the head that was trained on the other data set,
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_ade20k-to-coco.py \
#       work_dirs/samcp_clip-convnext-l_ade20k_160k/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_coco-panoptic.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        # All names of a class; its score is that of the one that fits best.
        text=dict(names='{{ fileDirname }}/../_base_/class_names/coco-panoptic.txt'),
    ),
)
train_dataloader = None
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')
