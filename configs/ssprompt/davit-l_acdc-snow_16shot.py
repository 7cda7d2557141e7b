# SSPrompt on SEEM with DaViT-d5, ACDC, snow, 16 images per class, the paper's recipe. Which DaViT
# "SEEM-L" is, is not said (docs/ambiguities.md), and no checkpoint of it is public: bring your own
# as seem_davitd5.pt in weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/make_few_shot_split.py configs/ssprompt/davit-l_acdc-snow_16shot.py
#   python tools/train.py configs/ssprompt/davit-l_acdc-snow_16shot.py
_base_ = [
    '../_base_/models/ssprompt_davit-d5.py',
    '../_base_/datasets/acdc-snow.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=61_047))
