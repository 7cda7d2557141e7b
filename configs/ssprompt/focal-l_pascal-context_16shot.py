# SSPrompt on the public SEEM (Focal-L), PASCAL Context (59 classes), 16 images per class, the
# paper's recipe. Put
# https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focall_v0.pt
# into weights/ (or $MMPROMPT_WEIGHTS).
#   python tools/make_few_shot_split.py configs/ssprompt/focal-l_pascal-context_16shot.py
#   python tools/train.py configs/ssprompt/focal-l_pascal-context_16shot.py
_base_ = [
    '../_base_/models/ssprompt_focal-l.py',
    '../_base_/datasets/pascal-context.py',
    '../_base_/schedules/ssprompt_published.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    texts={{_base_.class_texts}},
    expected_parameters=dict(ssprompt=81_567),
)
# The paper's batch for this data set, which it spreads over 4 GPUs.
train_dataloader = dict(batch_size=8)
