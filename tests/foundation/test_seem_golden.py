"""Numbers of the public SEEM code, reproduced in double precision on rule-made parameters."""

import json

import numpy as np
import pytest
import torch
from foundation import golden, rule

from mmprompt.foundation.seem import SEEMTextEncoder

TOLERANCE = 1e-5  # relative, and of the standard deviation
MOMENTS = 1e-7
#: Compared in tests of their own: integers, and what is no output.
ELSEWHERE = ('input_ids', 'sem_argmax', 'panoptic', 'inst_')


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.float64
    expected = expected.double()
    assert found.shape == expected.shape
    scale = expected.std().item()
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE * scale)


def test_the_rule_makes_the_published_values():
    makers = {
        'feature:dec.ms0': lambda shape: rule.feature('dec.ms0', shape),
        'image:image': lambda shape: rule.image('image', shape[0], *shape[2:]),
        'text_embeddings:text': lambda shape: rule.text(*shape),
    }
    for name, expected in json.loads((rule.DATA / 'rule_vectors.json').read_text()).items():
        shape = expected['shape']
        values = makers[name](shape) if name in makers else rule.parameter(name, shape)
        assert values.shape == tuple(shape) and values.dtype == np.float32
        found = values.ravel()[: len(expected['first'])].astype(float)
        assert found.tolist() == expected['first'], name
        if 'sum' in expected:
            assert values.sum(dtype=np.float64) == pytest.approx(expected['sum'], rel=1e-12), name


@pytest.mark.parametrize('name', golden.FILES)
def test_every_stored_number(name):
    values = golden.run(name)[0]
    checked = set()
    for key, expected in golden.arrays(golden.FILES[name]).items():
        if not key.startswith(ELSEWHERE):
            whole, found = golden.like_stored(name, key, values)
            check(found, expected)
            checked.add(whole)
    reported = {key for key in golden.report()[name] if not key.startswith(('_', 'pano', 'inst'))}
    assert checked >= reported  # nothing that the report knows of goes without an array


@pytest.mark.parametrize('name', golden.COMPUTATIONS)
def test_moments_of_the_whole_tensors(name):
    """Many files hold every n-th channel or query only; the report saw all of them."""
    values = golden.run(name)[0]
    for key, expected in golden.report()[name].items():
        if key.startswith(('_', 'pano', 'inst')):
            continue
        found = values[key]
        assert list(found.shape) == expected['shape'], key
        scale = expected['std']
        assert found.std().item() == pytest.approx(scale, rel=MOMENTS), key
        assert found.mean().item() == pytest.approx(expected['mean'], abs=MOMENTS * scale), key


def test_strokes_reach_object_queries_in_the_demo_only():
    plain = golden.run('decoder_seem_v0')[0]
    published = golden.run('decoder_seem_v0_spatial')[0]
    demo = golden.run('decoder_seem_demo_stroke')[0]
    assert torch.equal(published['pred_logits'], plain['pred_logits'])
    assert torch.equal(published['pred_masks'], plain['pred_masks'][:, ::10])
    for key in ('pred_logits', 'pred_masks'):
        assert torch.equal(demo[f'generic_{key}'], plain[key])
    change = (demo['pred_logits'] - plain['pred_logits']).abs().mean().item()
    expected = golden.report()['decoder_seem_demo_stroke']['_stroke_changes_logits_by']
    assert change == pytest.approx(expected, rel=1e-6)


def test_nothing_after_the_end_token_counts():
    """This lets short texts be encoded short."""
    encoder = golden.built(SEEMTextEncoder, 'text_encoder.', torch.float64)
    stored = golden.arrays('text_encoder')
    ids = stored['input_ids'].long()
    with torch.no_grad():
        for row, expected in zip(ids, stored['class_emb']):
            end = int((row == 49407).nonzero()[0])
            check(encoder(row[None, : end + 1])[0], expected)


@pytest.mark.parametrize('index', [0, 1])
def test_end_to_end_results(index):
    """From 0-255 RGB, by a model loaded from the whole flat state dict."""
    values = golden.run('e2e_focalt_v0')[0]
    expected = golden.arrays('e2e_focalt_v0')
    size = golden.OUTPUT_SIZES[index]
    assert (values[f'sem_argmax{index}'] == expected[f'sem_argmax{index}']).all()

    found = values[f'pano{index}']
    differing = (found.seg_map != expected[f'panoptic{index}']).sum()
    assert differing <= 2  # the reference itself differs from itself by border pixels
    segments = golden.report()['e2e_focalt_v0']['_panoptic_segments_info'][index]
    assert found.ids.tolist() == [segment['id'] for segment in segments]
    assert found.labels.tolist() == [segment['category_id'] for segment in segments]

    found = values[f'inst{index}']
    scores = expected[f'inst_scores{index}'].double()
    order = scores.argsort(descending=True, stable=True)
    check(found.scores, scores[order])
    assert (found.labels == expected[f'inst_classes{index}'][order]).all()
    bits = np.unpackbits(expected[f'inst_masks{index}_packed'].numpy(), axis=1)
    masks = torch.from_numpy(bits[:, : size[0] * size[1]]).unflatten(1, size).bool()
    assert torch.equal(found.masks, masks[order])
