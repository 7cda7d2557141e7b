# Classes that training has not seen: the head of samcp_r50_coco128_seen-60.py, trained on 60
# classes, measured on all 71 that occur; metrics of the two groups end in _seen and _unseen.
# The learned classifier against the embeddings of the names is all there is: no CLIP looks at the
# image here.
#   python tools/test.py configs/samcp/samcp_r50_coco128_seen-60_all-71.py \
#       work_dirs/samcp_r50_coco128_seen-60/head.safetensors
_base_ = './samcp_r50_coco128_seen-60.py'
groups = dict(seen={{_base_.seen_names}}, unseen={{_base_.unseen_names}})
model = dict(
    classes={{_base_.present_names}},
    head=dict(thing_classes=tuple(range(71))),
)
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.present_names}})))
test_evaluator = [
    dict(type='PanopticQuality', groups=groups),
    dict(type='InstanceAP', boxes=True, groups=groups),
    dict(type='ClassIoU', groups=groups),
]
