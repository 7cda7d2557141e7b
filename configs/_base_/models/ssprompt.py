# SSPrompt without a foundation model. Beside it, a base gives `base`, `backbone`,
# `decode_head.pixel_decoder` and `decode_head.decoder`, and a leaf `classes`.
model = dict(
    type='SSPromptSegmentor',
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
    # A name of METHODS in mmprompt.methods.ssprompt.methods (coop, locn, vspl, head, …) learns
    # that in place of the two prompts below.
    method=None,
    templates=None,  # SEEM's 81
    decode_head=dict(
        type='SEEMPromptHead',
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
        # 'semantic', 'instance' or 'panoptic'; the latter two take `mask_loss`.
        task='semantic',
        loss_decode=dict(type='SSPromptSemanticLoss', mode='nll'),
        mask_loss=dict(type='SSPromptMaskLoss'),
        train_resize='scores',
        test_resize='published',
    ),
    # Each image of a few-shot set comes back every few steps, flipped or not.
    feature_cache=dict(root='auto', dtype='fp32', limit_gb=20.0, memory_gb=2.0),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
