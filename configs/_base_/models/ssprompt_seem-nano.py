# SSPrompt over the SEEM-nano that mmprompt ships. A leaf adds `classes`.
_base_ = ['./seem-nano.py', './ssprompt.py']
model = dict(
    base='mmprompt://seem-nano_streets',
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
        # As it was pre-trained: on the cells of the stride-4 maps.
        mask_loss=dict(grid='native', matcher=dict(grid='native')),
    ),
)
