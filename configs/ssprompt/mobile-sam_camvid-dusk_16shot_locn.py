# LOCN: one word vector in place of each class name, on MobileSAM, from CamVid's dusk clip.
#   python tools/train.py configs/ssprompt/mobile-sam_camvid-dusk_16shot_locn.py
_base_ = './mobile-sam_camvid-dusk_16shot.py'
model = dict(method='locn', expected_parameters=dict(_delete_=True, locn=704))
