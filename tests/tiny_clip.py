"""A CLIP of open_clip with random weights: a ConvNeXt with maps of 24 to 64 channels, and texts."""

DIM, CONTEXT = 6, 12
CHANNELS = (24, 32, 48, 64)


def tiny_clip(**text) -> dict:
    """An architecture in open_clip's words."""
    return dict(
        embed_dim=DIM,
        vision_cfg=dict(
            timm_model_name='test_convnext', timm_pool='', timm_proj='mlp', image_size=64
        ),
        text_cfg=dict(context_length=CONTEXT, width=8, heads=2, layers=2, **text),
    )
