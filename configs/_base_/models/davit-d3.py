# SEEM with DaViT-d3, the sizes of the public davitd3_unicl_lang_v1 configuration. The other parts
# are those of Focal-T.
_base_ = './focal-t.py'
seem = dict(
    backbone=dict(
        _delete_=True,
        type='mmprompt.DaViT',
        embed_dims=(128, 256, 512, 1024),
        depths=(1, 1, 9, 1),
        num_heads=(4, 8, 16, 32),
        window_size=7,
        down_kernel=2,
        drop_path_rate=0.3,
    ),
    pixel_decoder=dict(in_channels=(128, 256, 512, 1024)),
)
