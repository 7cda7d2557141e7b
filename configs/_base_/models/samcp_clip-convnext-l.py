# SAM-CP in the open: CLIP's ConvNeXt-L stays as it is under an FPN, and CLIP's text encoder names
# the classes with FC-CLIP's sentences. At test what was learned and CLIP's view of a merged mask
# score every class together (open_vocabulary); `kappa_unseen` gives the classes that training never
# saw another share of CLIP. A leaf adds `classes`, `head.thing_classes` and, for classes with
# several names, `head.text.names`.
#
# The weights are fetched at the first start (1.4 GB); without a network give both places the file
# of https://huggingface.co/laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup:
#   --cfg-options model.backbone.pretrained=open_clip_model.safetensors \
#       model.head.text.pretrained=open_clip_model.safetensors
_base_ = './samcp.py'
model = dict(
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],  # CLIP's, times 255
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    backbone=dict(
        type='mmprompt.CLIPConvNeXt',
        model='convnext_large_d_320',
        pretrained='laion2b_s29b_b131k_ft_soup',
        out_indices=(0, 1, 2, 3),
    ),
    frozen_backbone=True,
    neck=dict(
        type='mmseg.FPN',
        in_channels=[192, 384, 768, 1536],
        out_channels=256,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=4,
    ),
    head=dict(
        text=dict(
            clip='convnext_large_d_320',
            pretrained='laion2b_s29b_b131k_ft_soup',
            templates='vild',
        ),
        text_dim=768,
    ),
    open_vocabulary=dict(
        type='OpenVocabularyScores',
        kappa=0.4,
        kappa_unseen=None,  # the same
        combine='geometric',
        temperature=None,  # CLIP's own scale
    ),
    seen_classes=None,  # those that the file of the weights names
)
