# SSPrompt on the public SEEM (Focal-T), Cityscapes, 16 images per class, the paper's recipe. Put
# https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focalt_v0.pt
# into weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/make_few_shot_split.py configs/ssprompt/focal-t_cityscapes_16shot.py
#   python tools/train.py configs/ssprompt/focal-t_cityscapes_16shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
# --cfg-options model.method=coop (locn, spaprompt, vspl, head, …) trains another method instead.
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(
        ssprompt=61_047, coop=8_192, locn=9_728, semprompt=9_747, spaprompt=51_300
    ),
)
