# Part segmentation: the 93 parts of Pascal-Part, "head of a dog" apart from "head of a cat" (Table
# 10, "w.o. general": AP 13.7, AP50 30.5, AP75 10.6).
# Annotations and patches first, as configs/_base_/datasets/samcp_pascal-part.py says; then
#   python tools/train.py configs/samcp/samcp_clip-convnext-l_pascal-part.py
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_pascal-part.py \
#       work_dirs/samcp_clip-convnext-l_pascal-part/head.safetensors
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/samcp_clip-convnext-l.py',
    '../_base_/datasets/samcp_pascal-part.py',
    '../_base_/schedules/samcp_100e_pascal-part.py',
]
model = dict(
    classes={{_base_.class_names}},
    # A closed domain: all classes are those of training, which the learned scores are for (4.1).
    open_vocabulary=None,
    head=dict(
        thing_classes={{_base_.thing_classes}},
        text=dict(names={{_base_.class_texts}}),
    ),
)
default_hooks = dict(checkpoint=dict(interval=1000))
