# SSPrompt over SEEM with DaViT-d3. A leaf adds `classes`. The authors of SEEM never linked a
# checkpoint of this size: bring your own under the public names, or a base file of mmprompt.
_base_ = ['./davit-d3.py', './ssprompt.py']
model = dict(
    base='{{$MMPROMPT_WEIGHTS:weights}}/seem_davitd3.pt',
    base_address='your own training: no checkpoint of this size was ever published',
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
    ),
    # 89 MB per view of 512x1024 pixels in fp32: worth it for sets that fit.
    feature_cache=None,
)
