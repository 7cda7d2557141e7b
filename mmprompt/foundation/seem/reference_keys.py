"""Names of the public SEEM checkpoints <-> ours, and model sizes read from tensor shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor

from mmprompt.common.errors import UserError

PIXEL = 'sem_seg_head.pixel_decoder.'
PREDICTOR = 'sem_seg_head.predictor.'
LANGUAGE = PREDICTOR + 'lang_encoder.'
# Training leftovers, and what X-Decoder has over SEEM; nothing of it takes part in inference.
IGNORED = (
    'criterion.',
    'dilation_kernel',
    'backbone_proj',
    PREDICTOR + 'caping_embed',
    PREDICTOR + 'pos_embed_caping.weight',
    PREDICTOR + 'self_attn_mask',
)

# Inside a unit of DaViT: (reference, timm's name); its two blocks are alike but for the attention.
_UNIT = [
    (f'{block}.{reference}.', f'{block}.{ours}.')
    for block, attention in (('spatial_block', 'window_attn'), ('channel_block', 'channel_attn'))
    for reference, ours in (
        ('conv1.fn.dw', 'cpe1.proj'),
        (f'{attention}.norm', 'norm1'),
        (f'{attention}.fn', 'attn'),
        ('conv2.fn.dw', 'cpe2.proj'),
        ('ffn.norm', 'norm2'),
        ('ffn.fn.net', 'mlp'),
    )
]
# (reference, ours): each '#' is an index, equal and in the same order on both sides; the first rule
# that fits wins. A name ending in '.' is a prefix.
_RULES = [
    *((f'{PIXEL}adapter_{i}.norm.', f'pixel_decoder.adapters.{i - 1}.norm.') for i in (1, 2, 3)),
    *((f'{PIXEL}adapter_{i}.', f'pixel_decoder.adapters.{i - 1}.conv.') for i in (1, 2, 3)),
    *((f'{PIXEL}layer_{i}.norm.', f'pixel_decoder.layers.{i - 1}.norm.') for i in (1, 2, 3, 4)),
    *((f'{PIXEL}layer_{i}.', f'pixel_decoder.layers.{i - 1}.conv.') for i in (1, 2, 3, 4)),
    (PIXEL + 'transformer.encoder.layers.#.', 'pixel_decoder.encoder.#.'),
    (PIXEL + 'input_proj.', 'pixel_decoder.input_proj.'),
    (PIXEL + 'mask_features.', 'pixel_decoder.mask_features.'),
    (LANGUAGE + 'logit_scale', 'decoder.logit_scale'),
    (LANGUAGE + 'lang_proj', 'text_encoder.lang_proj'),
    (LANGUAGE + 'lang_encoder.resblocks.#.mlp.', 'text_encoder.blocks.#.'),
    (LANGUAGE + 'lang_encoder.resblocks.#.', 'text_encoder.blocks.#.'),
    (LANGUAGE + 'lang_encoder.', 'text_encoder.'),
    (
        PREDICTOR + 'transformer_cross_attention_layers.#.multihead_attn.',
        'decoder.layers.#.cross_attn.',
    ),
    (PREDICTOR + 'transformer_cross_attention_layers.#.norm.', 'decoder.layers.#.cross_norm.'),
    (PREDICTOR + 'transformer_self_attention_layers.#.self_attn.', 'decoder.layers.#.self_attn.'),
    (PREDICTOR + 'transformer_self_attention_layers.#.norm.', 'decoder.layers.#.self_norm.'),
    (PREDICTOR + 'transformer_ffn_layers.#.norm.', 'decoder.layers.#.ffn_norm.'),
    (PREDICTOR + 'transformer_ffn_layers.#.', 'decoder.layers.#.ffn.'),
    (PREDICTOR + 'mask_embed.layers.#.', 'decoder.mask_embed.#.'),
    (PREDICTOR + 'mask_sptial_embed.#', 'decoder.mask_spatial_embed.#'),
    (PREDICTOR + 'query_feat.weight', 'decoder.query_feat'),
    (PREDICTOR + 'query_embed.weight', 'decoder.query_embed'),
    (PREDICTOR + 'level_embed.weight', 'decoder.level_embed'),
    (PREDICTOR + 'spatial_featured.weight', 'decoder.memory_content'),
    (PREDICTOR + 'spatial_embed.weight', 'decoder.memory_position'),
    (PREDICTOR + 'pn_indicator.weight', 'decoder.pn_indicator'),
    (PREDICTOR + 'class_embed', 'decoder.class_embed'),
    (PREDICTOR + 'decoder_norm.', 'decoder.decoder_norm.'),
    ('backbone.convs.0.proj.', 'backbone.stem.conv.'),
    ('backbone.convs.0.norm.', 'backbone.stem.norm.'),
    ('backbone.convs.#.proj.', 'backbone.stages.#.downsample.conv.'),
    ('backbone.convs.#.norm.', 'backbone.stages.#.downsample.norm.'),
    *((f'backbone.blocks.#.#.{a}', f'backbone.stages.#.blocks.#.{b}') for a, b in _UNIT),
    ('backbone.', 'backbone.'),
]


@lru_cache(maxsize=2)
def _compiled(reverse: bool) -> list[tuple[re.Pattern, str]]:
    rules = []
    for reference, ours in _RULES:
        source, target = (ours, reference) if reverse else (reference, ours)
        pattern = r'(\d+)'.join(map(re.escape, source.split('#')))
        pattern += '(.+)' if source.endswith('.') else '()$'
        rules.append((re.compile(pattern), target))
    return rules


def _rename(key: str, reverse: bool) -> str | None:
    for pattern, target in _compiled(reverse):
        match = pattern.match(key)
        if match:
            *indices, rest = match.groups()
            for index in indices:
                target = target.replace('#', index, 1)
            return target + rest
    return None


def to_ours(key: str) -> str | None:
    """Reference name -> our name; None if the name is unknown or ignored."""
    return None if key.startswith(IGNORED) else _rename(key, reverse=False)


def to_reference(key: str) -> str:
    """Our name -> reference name.

    Raises:
        KeyError: not a name of ours.
    """
    match = re.match(r'text_encoder\.blocks\.(\d+)\.(c_fc|c_proj)\.(.+)', key)
    if match:  # the reference nests these two in `mlp`
        index, name, rest = match.groups()
        return f'{LANGUAGE}lang_encoder.resblocks.{index}.mlp.{name}.{rest}'
    match = re.match(r'text_encoder\.blocks\.(\d+)\.(.+)', key)
    if match:
        return f'{LANGUAGE}lang_encoder.resblocks.{match[1]}.{match[2]}'
    name = _rename(key, reverse=True)
    if name is None:
        raise KeyError(key)
    return name


def public_name(key: str) -> str:
    """`to_reference`, and a name that is not of ours as it is."""
    try:
        return to_reference(key)
    except KeyError:
        return key


def is_reference(keys) -> bool:
    """Whether these are names of a public checkpoint."""
    return any(key.startswith('sem_seg_head.') for key in keys)


def _count(keys, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r'(\d+)\.')
    return 1 + max((int(m[1]) for m in map(pattern.match, keys) if m), default=-1)


def _focal_config(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    stages = _count(shapes, 'backbone.layers.')
    first = [f'backbone.layers.{i}.blocks.0.' for i in range(max(stages, 1))]
    levels = [_count(shapes, block + 'modulation.focal_layers.') for block in first]
    windows = [shapes[block + 'modulation.focal_layers.0.0.weight'][-1] for block in first]
    hidden, dim = shapes[first[0] + 'mlp.fc1.weight']
    return dict(
        type='mmprompt.FocalNet',
        embed_dim=dim,
        depths=[_count(shapes, f'backbone.layers.{i}.blocks.') for i in range(stages)],
        focal_levels=levels,
        focal_windows=windows,
        mlp_ratio=hidden / dim,
        block='dw' if first[0] + 'dw1.weight' in shapes else 'postnorm',
    )


def _davit_config(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    stages = range(_count(shapes, 'backbone.stages.'))
    first = [f'backbone.stages.{i}.blocks.0.spatial_block.' for i in stages]
    dims = [shapes[block + 'attn.proj.weight'][0] for block in first]
    kernels = {shapes[f'backbone.stages.{i}.downsample.conv.weight'][-1] for i in stages[1:]}
    if len(kernels) != 1:
        raise UserError(
            f'expected a DaViT whose downsamplers have one size, as in d3 (2) and d5 (3), found '
            f'kernels {sorted(kernels)}. Give a SEEM with one of these.'
        )
    hidden, dim = shapes[first[0] + 'mlp.fc1.weight']
    return dict(
        type='mmprompt.DaViT',
        embed_dims=dims,
        depths=[_count(shapes, f'backbone.stages.{i}.blocks.') for i in stages],
        num_heads=[max(dim // 32, 1) for dim in dims],
        down_kernel=kernels.pop(),
        mlp_ratio=hidden / dim,
    )


def _backbone_config(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict, list[int]]:
    """Constructor dict of the backbone, and its output channels."""
    if 'backbone.patch_embed.proj.weight' in shapes:
        config = _focal_config(shapes)
        return config, [config['embed_dim'] << i for i in range(len(config['depths']))]
    if 'backbone.stages.0.blocks.0.channel_block.attn.qkv.weight' in shapes:
        config = _davit_config(shapes)
        return config, config['embed_dims']
    first = next((public_name(key) for key in shapes if key.startswith('backbone.')), None)
    found = (
        'no tensor whose name starts with "backbone."'
        if first is None
        else (
            f'an unknown backbone, which has neither "backbone.patch_embed.proj.weight" nor '
            f'"backbone.blocks.0.0.channel_block.channel_attn.fn.qkv.weight" (its first tensor: '
            f'{first!r})'
        )
    )
    raise UserError(
        f'expected the state dict of a SEEM with a FocalNet (Focal-T, Focal-L) or a DaViT (d3, '
        f'd5), found {found}. Give a checkpoint with one of these, such as seem_focalt_v0.pt or '
        f'seem_focall_v0.pt.'
    )


def config_from_shapes(tensors: Mapping[str, Tensor]) -> dict:
    """Constructor dicts of `SEEM` from a state dict in our names.

    Head counts leave no trace in shapes: 8 everywhere and channels / 32 in a DaViT, whose windows
    are 7 x 7, as in every published configuration.

    Raises:
        UserError: a backbone that mmprompt does not have, or a tensor that gives a size is
            missing; in public names.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    try:
        backbone, channels = _backbone_config(shapes)
        dim = shapes['pixel_decoder.input_proj.weight'][0]
        pixel = dict(
            type='mmprompt.TransformerFPN',
            in_channels=channels,
            dim=dim,
            mask_dim=shapes['pixel_decoder.mask_features.weight'][0],
            num_layers=_count(shapes, 'pixel_decoder.encoder.'),
            ffn_dim=shapes['pixel_decoder.encoder.0.linear1.weight'][0],
        )
        queries, dim = shapes['decoder.query_feat']
        decoder = dict(
            type='mmprompt.SEEMDecoder',
            dim=dim,
            num_layers=_count(shapes, 'decoder.layers.'),
            ffn_dim=shapes['decoder.layers.0.ffn.linear1.weight'][0],
            num_queries=queries,
            mask_dim=shapes['decoder.mask_embed.2.weight'][0],
            proj_dim=shapes['decoder.class_embed'][1],
            num_memory=shapes.get('decoder.memory_content', (32,))[0],
        )
        config = dict(backbone=backbone, pixel_decoder=pixel, decoder=decoder)
        if any(key.startswith('text_encoder.') for key in shapes):
            config['text_encoder'] = _text_config(shapes)
    except KeyError as error:
        raise UserError(
            f'expected a whole SEEM, found no {public_name(error.args[0])!r}. Give a whole, '
            f'unwrapped state dict of SEEM.'
        ) from error
    return config


def _text_config(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    vocabulary, width = shapes['text_encoder.token_embedding.weight']
    return dict(
        type='mmprompt.SEEMTextEncoder',
        width=width,
        num_layers=_count(shapes, 'text_encoder.blocks.'),
        context_length=shapes['text_encoder.positional_embedding'][0],
        dim=shapes['text_encoder.lang_proj'][1],
    )
