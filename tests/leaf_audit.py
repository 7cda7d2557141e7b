"""Trained parameters of every leaf, counted by hand, apart from any code that is tested."""

from collections.abc import Iterable

NANO, R50 = 81, 129  # one row of a prompt: an embedding and its weight
RESNET = (64, 256, 512, 1024, 2048)  # channels before each stage of a bottleneck ResNet and behind


def spm(classes: int, channels: Iterable[int], width: int = 256, context: str = 'pdc') -> int:
    """Parameters of matchers: weights, biases of the last layers, two of BatchNorm a channel."""
    inner = {'pdc': 9 * width**2 // 4 + width**2, 'conv3x3': 9 * width**2}[context]
    norms = 2 * 2 * width * {'pdc': 3, 'conv3x3': 2}[context]
    return sum(3 * width * (c + classes) + (c + classes) + 2 * inner + norms for c in channels)


def psp(classes: int) -> int:
    """Pyramid pooling of four scales on 2,048 channels, a 3x3 convolution, BatchNorm, classes."""
    pools = 4 * (2048 * 512 + 2 * 512)
    return pools + 9 * (2048 + 4 * 512) * 512 + 2 * 512 + 513 * classes


def pup(classes: int, channels: int, convs: int) -> int:
    """LayerNorm, 3x3 convolutions of width 256 with BatchNorm, classes."""
    weights = 9 * (channels * 256 + (convs - 1) * 256 * 256)
    return 2 * channels + weights + convs * 2 * 256 + 257 * classes


SETR_PUP = pup(150, 1024, 4) + 3 * pup(150, 1024, 2)


def samcp(
    things: int,
    dim=256,
    channels=256,
    text=512,
    hidden=1024,
    ffn=2048,
    layers=(6, 6),
    affinity_ffn=0,
) -> int:
    """Parameters of a `SAMCPHead` over maps of so many channels, by its boxes in Figure 2."""

    def mlp(*sizes: int) -> int:
        return sum(a * b + b for a, b in zip(sizes, sizes[1:]))

    attention, norm, feed = 4 * mlp(dim, dim), 2 * dim, mlp(dim, ffn, dim)
    position = mlp(2 * dim, dim, dim)
    encoder = mlp(49 * channels, hidden, dim) + norm + position
    encoder += layers[0] * (attention + feed + 2 * norm)
    queries = mlp(text, dim) + norm + mlp(text, 4) + things * dim
    heads = 2 * mlp(8, 8) + mlp(8, 1)  # over the 8 similarities of a pair
    projections = mlp(dim, affinity_ffn, dim) if affinity_ffn else mlp(dim, dim)
    affinity = 2 * projections + heads + 1 + dim + 1
    decoder = layers[1] * (2 * attention + feed + 3 * norm + affinity) + position + norm
    classifier = mlp(dim, dim) + mlp(text, dim) + 2 + text
    return encoder + queries + decoder + classifier


def fpn(channels: Iterable[int], width: int = 256) -> int:
    """1x1 and 3x3 convolutions of each level, with GroupNorm."""
    return sum(c * width + 9 * width * width + 4 * width for c in channels)


R50_FPN = 23_454_912 + fpn(RESNET[1:])  # without the BatchNorm, which stays as it is
SWIN_L_FPN = 195_201_204 + fpn((192, 384, 768, 1536))
CLIP_FPN = fpn((192, 384, 768, 1536))  # of a frozen ConvNeXt-L
SMALL = dict(dim=128, hidden=256, ffn=512, layers=(2, 3))
#: Trained parameters of each leaf: prompts by the rows they have, pre-training by counting.
AUDIT = {
    'seem/focal-l_acdc-fog_zero-shot': 0,
    'seem/focal-l_acdc-night_zero-shot': 0,
    'seem/focal-l_acdc-rain_zero-shot': 0,
    'seem/focal-l_acdc-snow_zero-shot': 0,
    'seem/focal-l_ade20k_zero-shot': 0,
    'seem/focal-l_bdd100k_zero-shot': 0,
    'seem/focal-l_cityscapes_zero-shot': 0,
    'seem/focal-l_mapillary_zero-shot': 0,
    'seem/focal-l_pascal-context_zero-shot': 0,
    'seem/focal-t_acdc-fog_zero-shot': 0,
    'seem/focal-t_acdc-night_zero-shot': 0,
    'seem/focal-t_acdc-rain_zero-shot': 0,
    'seem/focal-t_acdc-snow_zero-shot': 0,
    'seem/focal-t_ade20k_zero-shot': 0,
    'seem/focal-t_bdd100k_zero-shot': 0,
    'seem/focal-t_cityscapes_zero-shot': 0,
    'seem/focal-t_mapillary_zero-shot': 0,
    'seem/focal-t_pascal-context_zero-shot': 0,
    'samcp/samcp_clip-convnext-l_ade20k-to-coco': CLIP_FPN + samcp(80, text=768),
    'samcp/samcp_clip-convnext-l_ade20k_160k': CLIP_FPN + samcp(100, text=768),
    'samcp/samcp_clip-convnext-l_coco-panoptic_12e': CLIP_FPN + samcp(80, text=768),
    'samcp/samcp_clip-convnext-l_coco-to-ade20k': CLIP_FPN + samcp(100, text=768),
    'samcp/samcp_clip-convnext-l_coco-to-cityscapes': CLIP_FPN + samcp(8, text=768),
    'samcp/samcp_clip-convnext-l_cod10k': CLIP_FPN + samcp(69, text=768),
    'samcp/samcp_clip-convnext-l_pascal-part': CLIP_FPN + samcp(93, text=768),
    'samcp/samcp_clip-convnext-l_pascal-part_general': CLIP_FPN + samcp(113, text=768),
    'samcp/samcp_nano_streets': fpn((24, 48, 96, 192), 64)
    + samcp(8, channels=64, text=80, **SMALL),
    'samcp/samcp_r50_ade20k_160k': R50_FPN + samcp(100),
    'samcp/samcp_r50_cityscapes': R50_FPN + samcp(8),
    'samcp/samcp_r50_coco-panoptic_12e': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco-panoptic_12e_released': R50_FPN + samcp(80, affinity_ffn=2048),
    'samcp/samcp_r50_coco-panoptic_36e': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco-panoptic_36e_mask-dino': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco128': fpn(RESNET[1:], 128) + samcp(80, channels=128, **SMALL),
    'samcp/samcp_r50_coco128_seen-60': fpn(RESNET[1:], 128) + samcp(60, channels=128, **SMALL),
    'samcp/samcp_r50_coco128_seen-60_all-71': fpn(RESNET[1:], 128)
    + samcp(71, channels=128, **SMALL),
    'samcp/samcp_swin-l_ade20k_160k': SWIN_L_FPN + samcp(100),
    'samcp/samcp_swin-l_coco-panoptic_12e': SWIN_L_FPN + samcp(80),
    'samcp/samcp_swin-l_coco-panoptic_36e': SWIN_L_FPN + samcp(80),
    'seem/seem-nano_streets-clear': 1_850_073,
    'seem/seem-nano_streets-clear_full': 1_850_073,
    'seem/seem-nano_camvid-day': 1_850_073,
    'seem/seem-r50_camvid-day': 2_220_609,
    'spm/spm_r101-coco-stuff_psp_ade20k': spm(150, RESNET[:3]) + psp(150),
    'spm/spm_r101_psp_ade20k': spm(150, RESNET) + psp(150),
    'spm/spm_r101_psp_vaihingen': spm(6, RESNET) + psp(6),
    'spm/spm_r101_pup_chase-db1': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r101_pup_hrf': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r101_pup_stare': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r50_psp_ade20k': spm(150, RESNET) + psp(150),
    'spm/spm_r50_psp_camvid': spm(11, RESNET) + psp(11),
    'spm/spm_r50_pup_chase-db1': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_swin-t_uper_ade20k': spm(150, (96, 192, 384, 768, 768)) + 31_497_366,
    'spm/spm_vit-l_pup_ade20k': spm(150, [1024] * 3) + SETR_PUP,
    'spm/spm_vit-l_pup_ade20k_1-stage': spm(150, [1024]) + SETR_PUP,
    'spm/spm_vit-l_pup_ade20k_2-stages': spm(150, [1024] * 2) + SETR_PUP,
    'ssprompt/focal-t_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-instance_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-instance_zero-shot': 0,
    'ssprompt/focal-t_cityscapes-panoptic_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-panoptic_zero-shot': 0,
    'ssprompt/focal-t_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/focal-t_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/focal-t_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/focal-l_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/focal-l_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/davit-l_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/davit-l_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_4shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_8shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_12shot': (100 + 19) * 513,
    'ssprompt/nano_streets-fog_4shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_8shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_12shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-clear_16shot': (100 + 19) * NANO,
    'ssprompt/nano_camvid-dusk_4shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_8shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_12shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_16shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-day_16shot': (100 + 11) * NANO,
    'ssprompt/nano_streets-fog-instance_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog-instance_zero-shot': 0,
    'ssprompt/nano_streets-fog-panoptic_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog-panoptic_zero-shot': 0,
    'ssprompt/focal-t_cityscapes_16shot_coop': 16 * 512,
    'ssprompt/focal-t_cityscapes_16shot_full': 100_370_929,
    'ssprompt/focal-t_cityscapes_16shot_head': 512 * 512 + 3 * 513 * 512 + 2 * 512,
    'ssprompt/focal-t_cityscapes_16shot_locn': 19 * 512,
    'ssprompt/focal-t_cityscapes_16shot_semprompt': 19 * 513,
    'ssprompt/focal-t_cityscapes_16shot_spaprompt': 100 * 513,
    'ssprompt/focal-t_cityscapes_16shot_vspl': 2 * 100,
    'ssprompt/nano_streets-fog_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_coop': 16 * 64,
    'ssprompt/nano_streets-fog_16shot_coop-csc': 19 * 16 * 64,
    'ssprompt/nano_streets-fog_16shot_coop-m4': 4 * 64,
    'ssprompt/nano_streets-fog_16shot_coop_native': 16 * 64,
    'ssprompt/nano_streets-fog_16shot_full': 1_715_449,
    'ssprompt/nano_streets-fog_16shot_head': 80 * 80 + 3 * 81 * 80 + 2 * 80,
    'ssprompt/nano_streets-fog_16shot_locn': 19 * 64,
    'ssprompt/nano_streets-fog_16shot_vspl': 2 * 100,
    'ssprompt/nano_streets-fog_16shot_grid': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_published': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_semprompt': 19 * NANO,
    'ssprompt/nano_streets-fog_16shot_semprompt_embedding-only': 19 * (NANO - 1),
    'ssprompt/nano_streets-fog_16shot_spaprompt': 100 * NANO,
    'ssprompt/nano_streets-fog_16shot_spaprompt_embedding-only': 100 * (NANO - 1),
    'ssprompt/nano_streets-fog_zero-shot': 0,
    'ssprompt/nano_streets-fog_zero-shot_bare': 0,
    'ssprompt/nano_streets-fog_zero-shot_grid': 0,
    'ssprompt/nano_streets-night_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-rain_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-snow_16shot': (100 + 19) * NANO,
    'ssprompt/mobile-sam_camvid-dusk_16shot': 100 * 257 + 11 * NANO,
    'ssprompt/mobile-sam_camvid-dusk_16shot_coop': 16 * 64,
    'ssprompt/mobile-sam_camvid-dusk_16shot_locn': 11 * 64,
    'ssprompt/mobile-sam_camvid-dusk_zero-shot': 0,
    'ssprompt/r50_camvid-dusk_16shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_16shot_semprompt': 11 * R50,
    'ssprompt/r50_camvid-dusk_16shot_spaprompt': 100 * R50,
    'ssprompt/r50_camvid-dusk_4shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_8shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_zero-shot': 0,
}
