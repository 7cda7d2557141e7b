# Camouflaged objects: COD10K's 69 sub-classes by their names, after training on COCO panoptic.
# The paper shows pictures (Figure 12) and no figures.
# Patches first, with as many processes as there are GPUs:
#   torchrun --nproc_per_node 8 tools/generate_patches.py \
#       configs/_base_/datasets/samcp_cod10k.py --generator sam --split test
# Then, with the head that was trained on the other data set,
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_cod10k.py \
#       work_dirs/samcp_clip-convnext-l_coco-panoptic_12e/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_cod10k.py',
]
model = dict(
    classes={{_base_.class_names}},
    head=dict(
        thing_classes={{_base_.thing_classes}},
        # All names of a class; its score is that of the one that fits best.
        text=dict(names='{{ fileDirname }}/../_base_/class_names/cod10k.txt'),
    ),
)
test_cfg = dict(type='TestLoop')
