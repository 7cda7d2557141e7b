# CoOp: 16 shared context vectors before each class name, on MobileSAM, from CamVid's dusk clip.
#   python tools/train.py configs/ssprompt/mobile-sam_camvid-dusk_16shot_coop.py
_base_ = './mobile-sam_camvid-dusk_16shot.py'
model = dict(method='coop', expected_parameters=dict(_delete_=True, coop=1_024))
