# SSPrompt over the public SEEM with Focal-T. A leaf adds `classes`.
_base_ = './focal-t.py'
model = dict(
    type='SSPromptSegmentor',
    base='{{$MMPROMPT_WEIGHTS:weights}}/seem_focalt_v0.pt',
    base_address='https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focalt_v0.pt',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    templates=None,  # SEEM's 81
    backbone={{_base_.seem.backbone}},
    decode_head=dict(
        type='SEEMPromptHead',
        pixel_decoder={{_base_.seem.pixel_decoder}},
        decoder={{_base_.seem.decoder}},
        spatial_prompt=dict(
            type='SpaPrompt',
            num_prompts=100,
            source='query',
            weight='sigmoid',
            init='default',
            decay_to='default',
        ),
        semantic_prompt=dict(
            type='SemPrompt',
            renormalise=False,
            weight='sigmoid',
            init='default',
            decay_to='default',
        ),
        loss_decode=dict(type='SSPromptSemanticLoss', mode='nll'),
        train_resize='scores',
        test_resize='logits',
    ),
    # 89 MB per view of 512x1024 pixels in fp32: worth it for sets that fit.
    feature_cache=None,
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
