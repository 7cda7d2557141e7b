# SAM-CP for any class by its name: a frozen ConvNeXt-L of CLIP and FPN, trained on COCO panoptic
# for 12 epochs. What the paper measures of it is samcp_clip-convnext-l_coco-to-ade20k.py and
# samcp_clip-convnext-l_coco-to-cityscapes.py (Tables 1, 3, 4, 6 and 8).
# Patches first, for --split train and val, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_coco-panoptic.py --generator sam --split train
# Then
#   python tools/train.py configs/samcp/samcp_clip-convnext-l_coco-panoptic_12e.py
# CLIP (pip install open_clip_torch) is fetched at the first start, or read from a file:
#   --cfg-options model.backbone.pretrained=FILE model.head.text.pretrained=FILE
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_coco-panoptic.py',
    '../_base_/schedules/samcp_12e_batch-32.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_texts}}),
    ),
)
# 4 on each of 8 GPUs (4.2).
train_dataloader = dict(batch_size=32)
# The backbone, which has a rate of its own elsewhere, is not trained.
optim_wrapper = dict(paramwise_cfg=None)
default_hooks = dict(checkpoint=dict(interval=1000))
