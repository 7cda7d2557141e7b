# The public SEEM (Focal-T) with its own prompts on ACDC at night. Put
# https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focalt_v0.pt
# into weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/test.py configs/seem/focal-t_acdc-night_zero-shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-t.py',
    '../_base_/models/ssprompt_zero-shot.py',
    '../_base_/datasets/acdc-night.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    decode_head={{_base_.default_prompts}},
    expected_parameters=0,
)
# Nothing is trained.
train_dataloader = None
