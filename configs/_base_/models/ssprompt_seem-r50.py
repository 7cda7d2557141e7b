# SSPrompt over the ResNet-50 base that configs/seem/seem-r50_camvid-day.py trains. A leaf adds
# `classes`.
_base_ = ['./seem-r50.py', './ssprompt.py']
model = dict(
    base='work_dirs/seem-r50_camvid-day/seem-r50_camvid-day.safetensors',
    base_address='python tools/train.py configs/seem/seem-r50_camvid-day.py',
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
    ),
)
