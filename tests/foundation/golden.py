"""The computations whose results the public SEEM code left, in any precision.

`tests/data/seem/*.npz` hold tensors of the public code, some of them strided; `report.json` holds
mean and standard deviation of the whole tensors and `f32_maxdiff`, the public code's own greatest
float32 - float64 difference. `run(name, dtype)` computes the same tensors under the same names.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from foundation import rule
from torch import Tensor

from mmprompt.foundation.seem import (
    SEEM,
    FocalNet,
    SEEMDecoder,
    SEEMFeatures,
    SEEMTextEncoder,
    Strokes,
    TransformerFPN,
)
from mmprompt.foundation.seem.reference_keys import to_reference

FOCAL_L = dict(embed_dim=192, depths=(2, 2, 18, 2), focal_levels=(4,) * 4, block='postnorm')
SIZES = ((120, 180), (100, 192))  # of the end-to-end images
OUTPUT_SIZES = ((90, 150), (140, 260))
#: Tensors that the files hold at every second row and column, without saying so in the name.
HALVED = {('decoder_seem_v0_spatial', f'{x}pred_{y}masks') for x in ('', 'round2_') for y in 's'}
HALVED.add(('decoder_seem_v0_spatial', 'pred_masks'))
AXES = dict(c=(1,), q=(1,), l=(1,), s=(-2, -1))


@cache
def report() -> dict:
    """Moments and float32 gaps: computation -> tensor -> numbers."""
    return json.loads((rule.DATA / 'report.json').read_text())


def arrays(name: str) -> dict[str, Tensor]:
    """What the public code answered, strided as the names say."""
    with np.load(rule.DATA / f'{name}.npz') as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def like_stored(name: str, key: str, values: dict[str, Tensor]) -> tuple[str, Tensor]:
    """(name in `values`, tensor strided as array `key` of file `name`)."""
    if key in values:
        value = values[key]
        return key, value[..., ::2, ::2] if (name, key) in HALVED else value
    whole, kind, step = re.fullmatch(r'(.+)_([cqls])(\d+)', key).groups()
    value = values[whole]
    for axis in AXES[kind]:
        index = torch.arange(0, value.shape[axis], int(step))
        value = value.index_select(axis, index)
    return whole, value


def built(part: type, prefix: str, dtype: torch.dtype, **sizes) -> torch.nn.Module:
    """One part of SEEM on the rule's parameters; `prefix` is where SEEM keeps the part."""
    with torch.device('meta'):
        module = part(**sizes)
    return rule.fill(module, lambda key: to_reference(prefix + key), dtype)


def features(dtype: torch.dtype) -> SEEMFeatures:
    """The decoder's input maps."""
    maps = [rule.feature(f'dec.ms{i}', (2, 512, 4 << i, 6 << i)) for i in range(3)]
    masks = rule.feature('dec.mask_features', (2, 512, 32, 48))
    return SEEMFeatures([rule.tensor(m, dtype) for m in maps], rule.tensor(masks, dtype))


def drawn(seed: int) -> Tensor:
    """(2, 128, 192) strokes of both images; seed 0 positive, 1 negative."""
    return torch.from_numpy(np.stack([rule.strokes(i, seed) for i in range(2)]))


def stroke_grid() -> Tensor:
    """(2, 128, 192) with a single pixel in the middle of each of 10 x 10 cells."""
    y, x = (((np.arange(10) + 0.5) * side / 10).astype(int) for side in (128, 192))
    mask = torch.zeros(2, 128, 192, dtype=torch.bool)
    mask[:, torch.from_numpy(y)[:, None], torch.from_numpy(x)] = True
    return mask


@contextmanager
def attention_bits(
    decoder: SEEMDecoder, replay: list[Tensor] | None = None
) -> Iterator[list[Tensor]]:
    """Record the masks of all cross-attentions, in order; with `replay` put those in their place.

    The masks threshold logits at 0, where rounding alone can flip a bit, after which two runs
    compute different functions.

    Yields:
        list of boolean tensors, grows while the decoder runs: its own masks, before replay.
    """
    seen, own = [], decoder._cross_allowed

    def swap(*args):
        seen.append(own(*args))
        return seen[-1] if replay is None else replay[len(seen) - 1]

    decoder._cross_allowed = swap
    try:
        yield seen
    finally:
        del decoder._cross_allowed


# ---------------------------------------------------------------- one function per computation
def _maps(net: torch.nn.Module, image: np.ndarray, dtype: torch.dtype) -> dict[str, Tensor]:
    return {f'res{i + 2}': x for i, x in enumerate(net(rule.tensor(image, dtype)))}


def _backbone_focalt(dtype, replay):
    net = built(FocalNet, 'backbone.', dtype)
    return _maps(net, rule.image('image', 2, 128, 192), dtype), []


def _backbone_focalt_odd(dtype, replay):
    net = built(FocalNet, 'backbone.', dtype)
    return _maps(net, rule.image('image_odd', 1, 70, 101), dtype), []


def _backbone_focall(dtype, replay):
    net = built(FocalNet, 'backbone.', dtype, **FOCAL_L)
    return _maps(net, rule.image('image', 1, 64, 96), dtype), []


def _pixel_decoder(dtype, replay):
    pixel = built(TransformerFPN, 'pixel_decoder.', dtype, in_channels=(96, 192, 384, 768))
    maps = [
        rule.tensor(rule.feature(f'pix.res{i + 2}', (2, 96 << i, 32 >> i, 48 >> i)), dtype)
        for i in range(4)
    ]
    out = pixel(maps)
    values = {f'ms{i}': x for i, x in enumerate(out.multi_scale)}
    values['encoder'] = pixel.encode_coarse(maps[3])
    values['mask_features'] = out.mask_features
    values['mask_features_sum_hw'] = out.mask_features.sum((2, 3))
    return values, []


def _decoder(dtype, replay):
    decoder = built(SEEMDecoder, 'decoder.', dtype)
    with attention_bits(decoder, replay) as bits:
        out = decoder(features(dtype), rule.tensor(rule.text(8), dtype), aux=True)
    masks = torch.stack([a.pred_masks for a in out.aux])
    return {
        'pred_logits': out.pred_logits,
        'pred_masks': out.pred_masks,
        'aux_logits': torch.stack([a.pred_logits for a in out.aux]),
        'aux_masks_q10': masks[:, :, ::10, ::2, ::2],
    }, bits


def _decoder_strokes(dtype, replay):
    decoder = built(SEEMDecoder, 'decoder.', dtype)
    maps, semantic = features(dtype), rule.tensor(rule.text(8), dtype)
    with attention_bits(decoder, replay) as bits:
        out = decoder(maps, semantic, strokes=Strokes(drawn(0), drawn(1)))
        first = out.strokes
        again = Strokes(drawn(0), drawn(1), previous=first.answer)
        second = decoder(maps, semantic, strokes=again).strokes
    return {
        'pred_logits': out.pred_logits,
        'pred_masks': out.pred_masks[:, ::10],
        'pred_smasks': first.pred_masks[:, ::10],
        'pred_smaskembs': first.mask_embed[:, ::4],
        'pred_pspatials': first.positive[:, None],
        'pred_nspatials': first.negative[:, None],
        'prev_mask': first.answer,
        'round2_pred_smasks': second.pred_masks[:, ::10],
        'round2_prev_mask': second.answer,
    }, bits


def _decoder_demo(dtype, replay):
    decoder = built(SEEMDecoder, 'decoder.', dtype, object_tokens=True)
    maps, semantic = features(dtype), rule.tensor(rule.text(8), dtype)
    with attention_bits(decoder, replay) as bits:
        grid = decoder(maps, semantic, strokes=stroke_grid())
        generic = decoder(maps, semantic)
        out = decoder(maps, semantic, strokes=Strokes(drawn(0), drawn(1)))
    return {
        'grid_pred_logits': grid.pred_logits,
        'grid_pred_masks': grid.pred_masks,
        'generic_pred_logits': generic.pred_logits,
        'generic_pred_masks': generic.pred_masks,
        'pred_logits': out.pred_logits,
        'pred_masks': out.pred_masks,
        'pred_maskembs': out.mask_embed,
        'pred_pspatials': out.strokes.positive[:, None],
    }, bits


def _text_encoder(dtype, replay):
    encoder = built(SEEMTextEncoder, 'text_encoder.', dtype)
    ids = arrays('text_encoder')['input_ids'].long()
    hidden, rows = encoder.hidden(ids), encoder(ids)
    unit = torch.nn.functional.normalize(rows, dim=-1)
    return {
        'last_hidden_state': hidden,
        'token_emb': hidden @ encoder.lang_proj,
        'class_emb': rows,
        'class_emb_norm': unit,
        'ensembled': torch.nn.functional.normalize(unit.mean(0), dim=0),
    }, []


def public_state(variant: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole flat state dict of a public checkpoint, every key of it."""
    shapes = json.loads((rule.DATA / f'keys_{variant}.json').read_text())
    return {
        key: torch.ones(shape, dtype=dtype)
        if key in ('dilation_kernel', 'criterion.empty_weight')
        else rule.tensor(rule.parameter(key, shape), dtype)
        for key, shape in shapes.items()
    }


def _encode_once(seem: SEEM) -> None:
    """Let the tasks of one image share its features."""
    encode, last = seem.encode_image, {}

    def encode_image(x):
        if not last or not torch.equal(last['x'], x):
            last.update(x=x, features=encode(x))
        return last['features']

    seem.encode_image = encode_image


def _end_to_end(dtype, replay):
    seem = SEEM.from_checkpoint(public_state('focalt', dtype))
    _encode_once(seem)
    semantic = rule.tensor(rule.text(8), dtype)
    values, outs, masks = {}, [], []
    for i, (size, output_size) in enumerate(zip(SIZES, OUTPUT_SIZES)):
        rgb = torch.from_numpy(rule.rgb(i, *size))
        start = len(masks)
        with attention_bits(seem.decoder, replay and replay[start:]) as own:
            outs.append(seem(seem.normalise(rgb)[None], semantic))
        masks += own
        values[f'sem_seg{i}'] = seem.semantic_scores(outs[i], size, output_size)[0]
        options = dict(classes=semantic, output_size=output_size)
        things = dict(things=(0, 1, 2), **options)
        with attention_bits(seem.decoder, (replay or masks)[start : start + len(own)] * 3):
            values[f'sem_argmax{i}'] = seem.segment(rgb, 'semantic', **options)
            values[f'pano{i}'] = seem.segment(
                rgb, 'panoptic', score_threshold=0.6, overlap_threshold=0.1, **things
            )
            values[f'inst{i}'] = seem.segment(rgb, 'instance', **things)
    values['pred_logits'] = torch.cat([out.pred_logits for out in outs])
    values['pred_masks'] = torch.cat([out.pred_masks for out in outs])
    return values, masks


COMPUTATIONS = {
    'backbone_focalt': _backbone_focalt,
    'backbone_focalt_odd_70x101': _backbone_focalt_odd,
    'backbone_focall_64x96_b1': _backbone_focall,
    'pixel_decoder_focalt': _pixel_decoder,
    'decoder_seem_v0': _decoder,
    'decoder_seem_v0_spatial': _decoder_strokes,
    'decoder_seem_demo_stroke': _decoder_demo,
    'text_encoder': _text_encoder,
    'e2e_focalt_v0': _end_to_end,
}
#: Computation -> its file, where the two are not called the same; two have none.
FILES = {
    name: name.removesuffix('_64x96_b1')
    for name in COMPUTATIONS
    if not name.endswith(('_odd_70x101', '_demo_stroke'))
}


@cache
def run(name: str, dtype: torch.dtype = torch.float64) -> tuple[dict, list[Tensor], int]:
    """(tensors, attention masks used, bits of them that this precision would have flipped).

    The reference is computed in double precision; other precisions attend by its masks.
    """
    replay = None if dtype == torch.float64 else run(name)[1]
    with torch.no_grad():
        values, bits = COMPUTATIONS[name](dtype, replay)
    if replay is None:
        return values, bits, 0
    flipped = sum(int((own != used).sum()) for own, used in zip(bits, replay, strict=True))
    return values, replay, flipped
