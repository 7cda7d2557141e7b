# SAM-CP in small, on the frozen backbone of the SEEM-nano in the package, whose maps are kept in
# memory, and with its text encoder: a width of 128, two layers among patches and three of affinity.
# The class loss is divided by the positive queries, as in the research code: by all of them (Eq. 1)
# it is too small to be learned in few steps.
_base_ = './samcp.py'
model = dict(
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
        init_cfg=dict(
            type='Pretrained', checkpoint='mmprompt://seem-nano_streets', prefix='backbone.'
        ),
    ),
    frozen_backbone=True,
    feature_cache=dict(root=None, memory_gb=4.0),
    neck=dict(
        type='mmseg.FPN',
        in_channels=[24, 48, 96, 192],
        out_channels=64,
        norm_cfg=dict(type='GN', num_groups=16),
        num_outs=4,
    ),
    head=dict(
        text=dict(base='mmprompt://seem-nano_streets'),
        text_dim=80,
        in_channels=64,
        dim=128,
        patch_encoder=dict(hidden=256, num_layers=2, ffn_dim=512),
        decoder=dict(num_layers=3, ffn_dim=512),
        denoising=dict(num_queries=100),
        loss=dict(cls_normaliser='positives'),
    ),
)
