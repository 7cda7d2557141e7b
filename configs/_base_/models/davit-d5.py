# SEEM with DaViT-d5, the sizes of the public davitd5_unicl_lang_v1 configuration.
_base_ = './davit-d3.py'
seem = dict(
    backbone=dict(
        embed_dims=(256, 512, 1024, 2048),
        num_heads=(8, 16, 32, 64),
        down_kernel=3,
    ),
    pixel_decoder=dict(in_channels=(256, 512, 1024, 2048)),
)
