# SSPrompt over the SEEM-nano that mmprompt ships. A leaf adds `classes`.
_base_ = ['./seem-nano.py', './ssprompt.py']
model = dict(
    base='mmprompt://seem-nano_streets',
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
        # All cells of the small maps for the loss; every other row and column of those of
        # 256x512 pixels is enough to match by, in a quarter of the time.
        mask_loss=dict(grid='native', matcher=dict(grid=(32, 64))),
    ),
)
