# SSPrompt over the public SEEM with Focal-T. A leaf adds `classes`.
_base_ = ['./focal-t.py', './ssprompt.py']
model = dict(
    base='{{$MMPROMPT_WEIGHTS:weights}}/seem_focalt_v0.pt',
    base_address='https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focalt_v0.pt',
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
    ),
    # 89 MB per view of 512x1024 pixels in fp32: worth it for sets that fit.
    feature_cache=None,
)
