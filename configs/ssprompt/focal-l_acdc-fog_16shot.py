# SSPrompt on the public SEEM (Focal-L), ACDC, fog, 16 images per class, the paper's recipe. Put
# https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focall_v0.pt
# into weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/make_few_shot_split.py configs/ssprompt/focal-l_acdc-fog_16shot.py
#   python tools/train.py configs/ssprompt/focal-l_acdc-fog_16shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-l.py',
    '../_base_/datasets/acdc-fog.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=61_047))
