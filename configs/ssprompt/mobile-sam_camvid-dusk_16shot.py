# SSPrompt on MobileSAM from 16 images per class of CamVid's dusk clip; 60 steps of two images.
#   python tools/train.py configs/ssprompt/mobile-sam_camvid-dusk_16shot.py
_base_ = [
    '../_base_/models/ssprompt_mobile-sam.py',
    '../_base_/datasets/camvid-dusk_sam.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(ssprompt=26_591),
    decode_head=dict(decoder=dict(area=(0.75, 1.0))),  # the images are 4:3
)
# A step decodes 100 points of each image, forwards and back.
max_iters = 60
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
