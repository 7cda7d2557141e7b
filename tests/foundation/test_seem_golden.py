"""Numbers of the public SEEM code, reproduced in double precision on rule-made parameters."""

import json

import numpy as np
import pytest
import torch
from foundation import rule

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

TOLERANCE = 1e-5  # relative, and of the standard deviation


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(rule.DATA / f'{name}.npz') as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    expected = expected.to(found.dtype)
    assert found.shape == expected.shape
    scale = expected.std().item()
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE * scale)


def built(part: type, prefix: str, **sizes) -> torch.nn.Module:
    with torch.device('meta'):
        module = part(**sizes)
    return rule.fill(module, lambda key: to_reference(prefix + key))


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def test_backbone_focal_t():
    net = built(FocalNet, 'backbone.')
    expected = golden('backbone_focalt')
    maps = net(rule.double(rule.image('image', 2, 128, 192)))
    for (name, want), found in zip(expected.items(), maps):
        check(found[:, :: int(name.split('_c')[1])], want)


def test_backbone_focal_l():
    net = built(
        FocalNet,
        'backbone.',
        embed_dim=192,
        depths=(2, 2, 18, 2),
        focal_levels=(4,) * 4,
        block='postnorm',
    )
    maps = net(rule.double(rule.image('image', 1, 64, 96)))
    for (name, want), found in zip(golden('backbone_focall').items(), maps):
        check(found[:, :: int((name + '_c1').split('_c')[1])], want)


def test_pixel_decoder():
    pixel = built(TransformerFPN, 'pixel_decoder.', in_channels=(96, 192, 384, 768))
    maps = [
        rule.double(rule.feature(f'pix.res{i + 2}', (2, 96 << i, 32 >> i, 48 >> i)))
        for i in range(4)
    ]
    features = pixel(maps)
    expected = golden('pixel_decoder_focalt')
    check(pixel.encode_coarse(maps[3]), expected['encoder'])
    for i, stride in enumerate((1, 4, 16)):
        name = f'ms{i}' if stride == 1 else f'ms{i}_c{stride}'
        check(features.multi_scale[i][:, ::stride], expected[name])
    check(features.mask_features[:, ::32], expected['mask_features_c32'])
    check(features.mask_features.sum((2, 3)), expected['mask_features_sum_hw'])


@pytest.fixture(scope='module')
def decoder():
    return built(SEEMDecoder, 'decoder.')


@pytest.fixture(scope='module')
def features():
    maps = [rule.double(rule.feature(f'dec.ms{i}', (2, 512, 4 << i, 6 << i))) for i in range(3)]
    return SEEMFeatures(maps, rule.double(rule.feature('dec.mask_features', (2, 512, 32, 48))))


@pytest.fixture(scope='module')
def semantic():
    return rule.double(rule.text(8))


def test_decoder_generic(decoder, features, semantic):
    expected = golden('decoder_seem_v0')
    out = decoder(features, semantic, aux=True)
    check(out.pred_logits, expected['pred_logits'])
    check(out.pred_masks[:, ::5], expected['pred_masks_q5'])
    check(torch.stack([a.pred_logits for a in out.aux]), expected['aux_logits'])
    masks = torch.stack([a.pred_masks for a in out.aux])
    check(masks[:, :, ::20, ::2, ::2], expected['aux_masks_q20'])


def test_decoder_strokes_and_memory(decoder, features, semantic):
    expected = golden('decoder_seem_v0_spatial')
    positive, negative = (
        torch.from_numpy(np.stack([rule.strokes(i, seed) for i in range(2)])) for seed in (0, 1)
    )
    out = decoder(features, semantic, strokes=Strokes(positive, negative))
    check(out.pred_masks[:, ::10, ::2, ::2], expected['pred_masks'])
    answer = out.strokes
    check(answer.pred_masks[:, ::10, ::2, ::2], expected['pred_smasks'])
    check(answer.mask_embed[:, ::4], expected['pred_smaskembs'])
    check(answer.positive[:, None], expected['pred_pspatials'])
    check(answer.negative[:, None], expected['pred_nspatials'])
    check(answer.answer, expected['prev_mask'])

    again = Strokes(positive, negative, previous=answer.answer)
    answer = decoder(features, semantic, strokes=again).strokes
    check(answer.pred_masks[:, ::10, ::2, ::2], expected['round2_pred_smasks'])
    check(answer.answer, expected['round2_prev_mask'])


def test_object_queries_that_see_strokes(decoder, features, semantic, monkeypatch):
    """The public demo's decoder; of it only moments were kept."""
    monkeypatch.setattr(decoder, 'object_tokens', True)
    strokes = [torch.from_numpy(np.stack([rule.strokes(i, s) for i in range(2)])) for s in (0, 1)]
    out = decoder(features, semantic, strokes=Strokes(*strokes))
    found = [
        f(v).item() for v in (out.pred_logits, out.pred_masks) for f in (torch.mean, torch.std)
    ]
    expected = [0.5122771828570861, 4.288038036136044, -0.016633385533895942, 11.439518361107648]
    assert found == pytest.approx(expected, rel=1e-6)


def test_text_encoder():
    encoder = built(SEEMTextEncoder, 'text_encoder.')
    expected = golden('text_encoder')
    ids = expected['input_ids'].long()
    hidden = encoder.hidden(ids)
    check(hidden[:, ::4], expected['last_hidden_state_l4'])
    check((hidden @ encoder.lang_proj)[:, ::16], expected['token_emb_l16'])
    rows = encoder(ids)
    check(rows, expected['class_emb'])
    unit = torch.nn.functional.normalize(rows, dim=-1)
    check(unit, expected['class_emb_norm'])
    check(torch.nn.functional.normalize(unit.mean(0), dim=0), expected['ensembled'])
    # Nothing after the end token counts, which lets short texts be encoded short.
    end = int((ids[0] == 49407).nonzero()[0])
    check(encoder(ids[:1, : end + 1]), expected['class_emb'][:1])


@pytest.fixture(scope='module')
def focal_t():
    """The whole model but the text side, through the public entry point."""
    shapes = json.loads((rule.DATA / 'keys_focalt.json').read_text())
    state = {
        key: rule.double(rule.parameter(key, shape))
        for key, shape in shapes.items()
        if '.lang_encoder.' not in key or key.endswith('logit_scale')
    }
    return SEEM.from_checkpoint(state)


SIZES = ((120, 180), (100, 192))
OUTPUT_SIZES = ((90, 150), (140, 260))


@pytest.mark.parametrize('index', [0, 1])
def test_end_to_end_from_rgb(focal_t, semantic, index):
    expected = golden('e2e_focalt_v0')
    rgb = torch.from_numpy(rule.rgb(index, *SIZES[index]))
    size = OUTPUT_SIZES[index]
    out = focal_t(focal_t.normalise(rgb)[None], semantic)
    check(out.pred_logits[0], expected['pred_logits'][index])
    check(out.pred_masks[0, ::5], expected['pred_masks_q5'][index])
    scores = focal_t.semantic_scores(out, SIZES[index], size)[0, :, ::2, ::2]
    check(scores, expected[f'sem_seg{index}_s2'])

    options = dict(classes=semantic, output_size=size)
    labels = focal_t.segment(rgb, 'semantic', **options)
    assert (labels == expected[f'sem_argmax{index}']).all()
    found = focal_t.segment(
        rgb, 'panoptic', things=(0, 1, 2), score_threshold=0.6, overlap_threshold=0.1, **options
    )
    differing = (found.seg_map != expected[f'panoptic{index}']).sum()
    assert differing <= 2  # the reference itself differs from itself by a border pixel

    found = focal_t.segment(rgb, 'instance', things=(0, 1, 2), **options)
    scores = expected[f'inst_scores{index}'].double()
    order = scores.argsort(descending=True, stable=True)
    check(found.scores, scores[order])
    assert (found.labels == expected[f'inst_classes{index}'][order]).all()
    bits = np.unpackbits(expected[f'inst_masks{index}_packed'].numpy(), axis=1)
    masks = torch.from_numpy(bits[:, : size[0] * size[1]]).unflatten(1, size).bool()
    assert (found.masks != masks[order]).sum() <= 2
