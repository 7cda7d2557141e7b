# SEEM in small: the same classes as the full sizes, 1.9 M parameters at most with the text encoder.
# Layer scale and temperature start where training from scratch wants them, not at the published
# values, which suit fine-tuning.
seem = dict(
    backbone=dict(
        type='mmprompt.FocalNet',
        embed_dim=24,
        depths=(2, 3, 2, 1),
        focal_levels=(2, 2, 2, 2),
        focal_windows=(3, 3, 3, 3),
        mlp_ratio=2.5,
        drop_path_rate=0.0,
        block='dw',
        layer_scale=0.5,
    ),
    pixel_decoder=dict(
        type='mmprompt.TransformerFPN',
        in_channels=(24, 48, 96, 192),
        dim=80,
        mask_dim=80,
        num_layers=1,
        num_heads=5,
        ffn_dim=160,
        num_groups=16,
    ),
    decoder=dict(
        type='mmprompt.SEEMDecoder',
        dim=80,
        num_layers=6,
        num_heads=5,
        ffn_dim=160,
        num_queries=101,
        mask_dim=80,
        proj_dim=80,
        num_memory=8,
        logit_scale=2.659,  # log(1 / 0.07)
    ),
)
