# Parts and wholes by one model: the 93 parts of Pascal-Part and its 20 kinds of objects, whose
# masks lie over those of their parts. Table 10, "w. general": AP 13.6, AP50 30.1 and AP75 10.5 of
# parts, here AP_parts and so on. Images and patches are those of the model of parts alone.
#   python tools/train.py configs/samcp/samcp_clip-convnext-l_pascal-part_general.py
#   python tools/test.py configs/samcp/samcp_clip-convnext-l_pascal-part_general.py \
#       work_dirs/samcp_clip-convnext-l_pascal-part_general/head.safetensors
_base_ = './samcp_clip-convnext-l_pascal-part.py'
groups = dict(parts={{_base_.part_names}}, wholes={{_base_.whole_names}})
model = dict(
    classes={{_base_.general_names}},
    head=dict(
        thing_classes=tuple(range(113)),
        text=dict(names={{_base_.general_texts}}),
    ),
    test_cfg=dict(instance_top_k=300),  # parts do not share 100 places with wholes
)
train_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.general_names}})))
val_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.general_names}})))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='PanopticQuality', groups=groups),
    dict(type='InstanceAP', boxes=True, groups=groups),
    dict(type='ClassIoU', groups=groups),
]
test_evaluator = val_evaluator
