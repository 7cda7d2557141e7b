# SEEM with Focal-L, the sizes of the public seem_focall_v0.pt. Its block is another one than
# Focal-T's: post-norm inside the branches, no depthwise residuals.
_base_ = './focal-t.py'
seem = dict(
    backbone=dict(
        embed_dim=192,
        depths=(2, 2, 18, 2),
        focal_levels=(4, 4, 4, 4),
        block='postnorm',
    ),
    pixel_decoder=dict(in_channels=(192, 384, 768, 1536)),
)
