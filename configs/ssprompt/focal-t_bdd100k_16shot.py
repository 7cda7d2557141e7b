# SSPrompt on the public SEEM (Focal-T), BDD100K, 16 images per class, the paper's recipe. Put
# https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focalt_v0.pt
# into weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/make_few_shot_split.py configs/ssprompt/focal-t_bdd100k_16shot.py
#   python tools/train.py configs/ssprompt/focal-t_bdd100k_16shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/datasets/bdd100k.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(classes={{_base_.class_names}}, expected_parameters=dict(ssprompt=61_047))
