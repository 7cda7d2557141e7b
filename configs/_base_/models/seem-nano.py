# SEEM in small: the same classes as the full sizes, 1.85 M parameters with the text encoder.

# The 19 Cityscapes classes in order, each with the words that mean it; CamVid's names are among
# them.
class_synonyms = (
    ('road', 'street', 'roadway', 'asphalt'),
    ('sidewalk', 'pavement', 'footpath'),
    ('building', 'house'),
    ('wall',),
    ('fence', 'railing'),
    ('pole', 'post', 'column pole'),
    ('traffic light', 'traffic signal'),
    ('traffic sign', 'road sign', 'sign symbol'),
    ('vegetation', 'tree', 'bush'),
    ('terrain', 'grass', 'lawn'),
    ('sky',),
    ('person', 'pedestrian', 'human'),
    ('rider', 'cyclist', 'bicyclist', 'motorcyclist'),
    ('car', 'vehicle', 'automobile'),
    ('truck', 'lorry'),
    ('bus', 'coach'),
    ('train', 'tram'),
    ('motorcycle', 'motorbike'),
    ('bicycle', 'bike'),
)
# What `collect_token_ids(class_synonyms, ('{}', *seem_templates()))` answers.
token_ids = (
    73, 268, 269, 320, 518, 529, 530, 531, 537, 539, 545, 559, 607, 637, 705, 775, 794, 862,
    886, 943, 1042, 1063, 1125, 1212, 1346, 1395, 1449, 1455, 1503, 1549, 1579, 1615, 1626,
    1759, 1805, 2012, 2052, 2077, 2103, 2292, 2307, 2312, 2390, 2442, 2533, 2569, 2660, 2677,
    2728, 2751, 2840, 3086, 3144, 3231, 3299, 3399, 3610, 3638, 3701, 3772, 3975, 4629, 4852,
    5269, 5299, 5613, 5922, 5988, 5994, 6102, 6325, 6867, 7615, 7651, 8170, 8757, 9247, 9388,
    9707, 9977, 10297, 10593, 10781, 11024, 11207, 11652, 11676, 12679, 13085, 14384, 17500,
    18256, 20184, 20686, 21339, 21977, 22381, 23278, 25258, 26638, 27669, 28891, 30429, 30574,
    31139, 31354, 31832, 33341, 33947, 42744, 48858, 49406, 49407,
)  # fmt: skip
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
    text_encoder=dict(
        type='mmprompt.SEEMTextEncoder',
        width=64,
        num_layers=2,
        num_heads=4,
        context_length=24,
        dim=80,
        token_ids=token_ids,
    ),
)
