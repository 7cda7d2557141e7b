# SSPrompt on MobileSAM (paper 001, appendix B). SAM has no texts: rows of classes come from the
# text encoder of the SEEM-nano that mmprompt ships, and a fixed random projection takes SAM's
# features to them. A leaf adds `classes`.
_base_ = ['./seem-nano.py', './ssprompt.py']
model = dict(
    type='SSPromptSAM',
    base='{{$MMPROMPT_WEIGHTS:weights}}/mobile_sam.pt',
    base_address='https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt',
    text_base='mmprompt://seem-nano_streets',
    backbone=dict(type='mmprompt.SAMImageEncoder'),
    decode_head=dict(
        type='SAMPromptHead',
        decoder=dict(
            type='mmprompt.SAMPointDecoder',
            prompt_encoder=dict(type='mmprompt.SAMPromptEncoder'),
            mask_decoder=dict(type='mmprompt.SAMMaskDecoder'),
            text_dim=80,
            masks='single',
            centre='image',
            projection_seed=0,
        ),
        text_encoder={{_base_.seem.text_encoder}},  # for what learns words
        spatial_prompt=dict(source='points'),
    ),
)
