# SSPrompt over the ResNet-50 base that configs/seem/seem-r50_camvid-day.py trains. A leaf adds
# `classes`.
_base_ = './seem-r50.py'
model = dict(
    type='SSPromptSegmentor',
    base='work_dirs/seem-r50_camvid-day/seem-r50_camvid-day.safetensors',
    base_address='python tools/train.py configs/seem/seem-r50_camvid-day.py',
    data_preprocessor={{_base_.data_preprocessor}},
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
    # Each image of a few-shot set comes back every few steps, flipped or not.
    feature_cache=dict(root='auto', dtype='fp32', limit_gb=20.0, memory_gb=2.0),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
