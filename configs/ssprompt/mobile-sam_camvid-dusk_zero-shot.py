# MobileSAM's grid of points and the class names as they are (zero-shot) on CamVid's dusk clip.
#   python tools/test.py configs/ssprompt/mobile-sam_camvid-dusk_zero-shot.py
_base_ = './mobile-sam_camvid-dusk_16shot.py'
model = dict(method='zero-shot', expected_parameters=0)
# Nothing is trained.
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
