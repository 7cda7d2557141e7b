"""The quantised affinity against exact arithmetic, and boxes around boxes against loops."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from mmprompt.methods.samcp.merging import boxes_around, high_affinity, merging_affinity

VERY_LOW = torch.tensor([[[-120.0, -130.0, -110.0]]])  # in float32 their sigmoids are 0


def probability(logit: float) -> Decimal:
    """The sigmoid to 100 digits."""
    with localcontext() as context:
        context.prec = 100
        return 1 / (1 + Decimal(-logit).exp())


def scaled(row: list[float]) -> list[float]:
    """One row as the paper says it, with a division."""
    probs = [probability(logit) for logit in row]
    low, high = min(probs), max(probs)
    if low == high:
        return [1.0] * len(row)
    with localcontext() as context:
        context.prec = 100
        return [float((p - low) / (high - low)) for p in probs]


def by_the_formula(row: list[float], rule: str) -> list[bool]:
    if rule == 'min-max':
        return [value >= 0.5 for value in scaled(row)]
    high = [probability(logit) >= Decimal('0.5') for logit in row]
    return high if any(high) else [True] * len(row)


@pytest.mark.parametrize('rule', ['min-max', 'threshold'])
@pytest.mark.parametrize('shift', [0.0, -3.0, -30.0, 30.0, -80.0, -120.0, -1000.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_high_affinity(rule, shift, dtype):
    torch.manual_seed(0)
    logits = (torch.randn(2, 5, 7) * 3 + shift).to(dtype)
    logits[0, 0] = logits[0, 0, 0]  # a row of equal values
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 4:] = False
    logits[0, :, 4:] = torch.tensor([math.inf, -math.inf, math.nan])  # padding may hold anything
    found = high_affinity(logits, valid, rule)
    assert found.any(-1).all() and not found[0, :, 4:].any()
    for image, width in ((0, 4), (1, 7)):
        for row in range(5):
            given = logits[image, row, :width].tolist()
            assert found[image, row, :width].tolist() == by_the_formula(given, rule)


@pytest.mark.parametrize('rule', ['min-max', 'threshold'])
def test_high_affinity_of_nothing_and_of_one(rule):
    one = torch.zeros(1, 3, 1)
    assert high_affinity(one - 50, torch.tensor([[True]]), rule).all()
    assert high_affinity(one - 1000, torch.tensor([[True]]), rule).all()
    assert not high_affinity(one, torch.tensor([[False]]), rule).any()
    assert high_affinity(one[..., :0], torch.ones(1, 0, dtype=torch.bool), rule).shape == (1, 3, 0)


@pytest.mark.parametrize(
    'logits', [torch.tensor([[[-24.0, -23.0, -20.0]]], dtype=torch.bfloat16), VERY_LOW]
)
def test_very_low_affinities_are_told_apart(logits):
    """Half precision would call the sigmoids of the first equal, single those of the second."""
    found = high_affinity(logits, torch.ones(1, 3, dtype=torch.bool), 'min-max')
    assert found.tolist() == [[[False, False, True]]]


@pytest.mark.parametrize('shift', [0.0, -30.0, 30.0, 60.0, -120.0])
def test_the_scale_of_a_row(shift):
    torch.manual_seed(0)
    logits = torch.randn(6, 5) * 3 + shift
    found = merging_affinity(logits, 'min-max')
    assert found.dtype == torch.float32
    for row, values in zip(logits, found):
        assert values.tolist() == pytest.approx(scaled(row.tolist()), rel=1e-4, abs=1e-6)
    assert torch.equal(merging_affinity(logits, 'threshold'), logits.sigmoid())
    assert merging_affinity(logits[:, :1], 'min-max').tolist() == [[1.0]] * 6
    assert merging_affinity(logits[:, :0], 'min-max').shape == (6, 0)
    assert merging_affinity(logits[:, :1].expand(-1, 3), 'min-max').tolist() == [[1.0] * 3] * 6


@pytest.mark.parametrize('rule', ['min-max', 'threshold'])
def test_decoder_and_results_take_in_the_same_patches(rule):
    """What is padding is 0 and changes nothing else."""
    logits = torch.cat([VERY_LOW, VERY_LOW + 119, VERY_LOW + 200], dim=1)  # (1, 3, 3)
    alone = merging_affinity(logits[0], rule)
    padded = torch.cat([logits, torch.full((1, 3, 2), 50.0)], dim=2)
    valid = torch.tensor([[True] * 3 + [False] * 2])
    found = merging_affinity(padded, rule, valid[:, None])[0]
    assert torch.equal(found[:, :3], alone) and not found[:, 3:].any()
    high = high_affinity(padded, valid, rule)[0, :, :3]
    some = (alone >= 0.5).any(dim=1, keepdim=True)
    assert torch.equal(high, (alone >= 0.5) | ~some)


def test_boxes_around():
    torch.manual_seed(0)
    boxes, chosen = torch.rand(2, 6, 4), torch.rand(2, 9, 6) < 0.4
    chosen[0, 0] = False
    nothing = torch.tensor([0.0, 0, 1, 1])
    found = boxes_around(boxes, chosen, nothing)
    assert found[0, 0].tolist() == [0, 0, 1, 1]
    for image in range(2):
        assert torch.equal(boxes_around(boxes[image], chosen[image], nothing), found[image])
        for row in range(9):
            mine = boxes[image][chosen[image, row]]
            if len(mine):
                assert torch.equal(found[image, row, :2], mine[:, :2].amin(0))
                assert torch.equal(found[image, row, 2:], mine[:, 2:].amax(0))
    assert boxes_around(boxes[:, :0], chosen[..., :0], nothing).tolist() == [[[0, 0, 1, 1]] * 9] * 2
    assert boxes_around(boxes, chosen[:, :0], nothing).shape == (2, 0, 4)
