# Measures on Cityscapes what was trained on COCO panoptic: the classes are given by their texts.
# The paper does this with a frozen ConvNeXt-L of CLIP (Table 1), as
# samcp_clip-convnext-l_coco-to-cityscapes.py; this is the closed-domain ResNet-50. Patches in crops
# along the long side, then the weights of any SAM-CP with that backbone:
#   python tools/generate_patches.py configs/_base_/datasets/samcp_cityscapes.py \
#       --generator sam --split val
#   python tools/test.py configs/samcp/samcp_r50_cityscapes.py \
#       work_dirs/samcp_r50_coco-panoptic_36e/iter_266148.pth
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_r50.py',
    '../_base_/datasets/samcp_cityscapes.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_names}}),
    ),
)
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')
