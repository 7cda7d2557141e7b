"""Float32 stays within five times the public code's own float32 - float64 difference."""

import pytest
import torch
from foundation import golden

FACTOR = 5
BORDER_PIXELS = 2  # of one result; the public code's own float32 differs in as many


def check(found: torch.Tensor, expected: torch.Tensor, gap: float, key: str) -> None:
    assert found.dtype == torch.float32
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= FACTOR * gap, f'{key}: {difference:.2e}, {difference / gap:.1f} x the gap'


@pytest.mark.parametrize('name', golden.COMPUTATIONS)
def test_float32(name):
    """Against the stored arrays, and against the whole tensors in double precision.

    A mask logit within rounding of 0 can fall on either side, and what its query attends to then
    is another function, whatever the precision. So the masks are compared bit by bit: one of the
    up to 1.3 million may differ, no more; it is set right, and all numbers must fit.
    """
    exact, _, _ = golden.run(name)
    values, _, flipped = golden.run(name, torch.float32)
    assert flipped <= 1
    gaps = {k: r['f32_maxdiff'] for k, r in golden.report()[name].items() if k in exact}
    tensors = {key: gap for key, gap in gaps.items() if isinstance(exact[key], torch.Tensor)}
    assert tensors
    for key, gap in tensors.items():
        check(values[key], exact[key], gap, key)
    stored = golden.arrays(golden.FILES[name]) if name in golden.FILES else {}
    for key, expected in stored.items():
        if expected.is_floating_point() and not key.startswith('inst_'):
            whole, found = golden.like_stored(name, key, values)
            if whole in tensors:  # the sums over pixels have no gap of their own
                check(found, expected, tensors[whole], key)


@pytest.mark.parametrize('index', [0, 1])
def test_float32_results(index):
    values = golden.run('e2e_focalt_v0', torch.float32)[0]
    expected = golden.arrays('e2e_focalt_v0')
    gaps = golden.report()['e2e_focalt_v0']
    wrong = values[f'sem_argmax{index}'] != expected[f'sem_argmax{index}']
    assert wrong.sum() <= BORDER_PIXELS
    wrong = values[f'pano{index}'].seg_map != expected[f'panoptic{index}']
    assert wrong.sum() <= BORDER_PIXELS
    key = f'inst_scores{index}'
    found, exact = values[f'inst{index}'], golden.run('e2e_focalt_v0')[0][f'inst{index}']
    wrong = (found.masks != exact.masks).sum((1, 2))
    assert wrong.sum() <= BORDER_PIXELS
    same = wrong == 0  # a score is a mean over its mask: another pixel, another score
    check(found.scores[same], exact.scores[same], gaps[key]['f32_maxdiff'], key)
    torch.testing.assert_close(found.scores.double(), exact.scores, rtol=0, atol=1e-3)
