"""Matching and mask losses, against loops, exhaustive search and `grid_sample`."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmprompt.common import matching
from mmprompt.common.matching import HungarianMatcher, MaskTargets


def _targets(counts, size=(16, 24), classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    masks = [torch.rand(n, *size, generator=rng) > 0.5 for n in counts]
    labels = [torch.randint(classes, (n,), generator=rng) for n in counts]
    return MaskTargets.from_lists(masks, labels)


def test_grid_points_are_cell_centres_row_by_row():
    wanted = [[0.25, 0.125], [0.75, 0.125], [0.25, 0.375]]
    assert matching.grid_points(4, 2)[:3].tolist() == wanted


def test_sampling_at_cell_centres_returns_the_map():
    maps = torch.randn(2, 3, 5, 7)
    points = matching.grid_points(5, 7).expand(2, -1, -1)
    torch.testing.assert_close(matching.sample_maps(maps, points), maps.flatten(2))


def test_sample_masks_equals_grid_sample_of_copies():
    torch.manual_seed(0)
    masks = torch.rand(5, 9, 13) > 0.5
    rows = torch.tensor([4, 0, 0, 2])
    points = torch.rand(4, 300, 2)
    points[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    wanted = matching.sample_maps(masks[rows].float()[:, None], points)[:, 0]
    torch.testing.assert_close(matching.sample_masks(masks, rows, points), wanted)


def test_pairwise_cost_equals_one_pair_at_a_time():
    torch.manual_seed(1)
    logits = torch.randn(2, 4, 30, dtype=torch.float64) * 4
    truth = torch.rand(2, 3, 30, dtype=torch.float64)
    bce, dice = matching.pairwise_mask_cost(logits, truth)
    for b, q, t in itertools.product(range(2), range(4), range(3)):
        x, y = logits[b, q], truth[b, t]
        assert float(bce[b, q, t]) == pytest.approx(
            float(F.binary_cross_entropy_with_logits(x, y)), rel=1e-9
        )
        s = x.sigmoid()
        wanted = 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)
        assert float(dice[b, q, t]) == pytest.approx(float(wanted), rel=1e-9)


def test_points_that_do_not_count_are_as_good_as_left_out():
    torch.manual_seed(5)
    logits = torch.randn(2, 4, 30, dtype=torch.float64) * 4
    truth = torch.rand(2, 4, 30, dtype=torch.float64)
    keep = torch.rand(2, 30) > 0.4
    for image, row in enumerate(keep):
        weights = row.double()
        own, wanted = logits[image], truth[image]
        pairs = [
            (
                matching.pairwise_mask_cost(own[None], wanted[None], weights[None]),
                matching.pairwise_mask_cost(own[None, :, row], wanted[None, :, row]),
            ),
            (
                matching.mask_losses(own, wanted, weights.expand(4, -1)),
                matching.mask_losses(own[:, row], wanted[:, row]),
            ),
        ]
        for found, expected in pairs:
            torch.testing.assert_close(found, expected)
    bce, _ = matching.mask_losses(logits[0], truth[0], torch.zeros(4, 30).double())
    assert not bce.any()


@pytest.mark.parametrize('grid', [(4, 6), 'native', None])
def test_matching_is_the_cheapest_of_all_assignments(grid):
    torch.manual_seed(2)
    targets = _targets([2, 0, 3])
    logits, masks = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 8, 12) * 3
    matcher = HungarianMatcher(num_points=64, grid=grid)
    torch.manual_seed(3)
    matches = matcher(logits, masks, targets)
    torch.manual_seed(3)  # the same random points again
    points = matcher.points(3, (8, 12), masks)
    for layer in range(2):
        for image, (start, count) in enumerate([(0, 2), (2, 0), (2, 3)]):
            values = matching.sample_maps(masks[layer, image][None], points[image][None])[0]
            cost = np.zeros((4, count))
            for q, t in itertools.product(range(4), range(count)):
                mask = targets.masks[start + t][None, None].float()
                y = matching.sample_maps(mask, points[image][None])[0, 0]
                s = values[q].sigmoid()
                bce = F.binary_cross_entropy_with_logits(values[q], y)
                dice = 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)
                p = logits[layer, image, q].softmax(-1)[targets.labels[start + t]]
                cost[q, t] = 5 * bce + 5 * dice - 2 * p
            best = min(
                itertools.permutations(range(4), count),
                key=lambda queries: sum(cost[q, t] for t, q in enumerate(queries)),
            )
            here = (matches.layer == layer) & (matches.image == image)
            found = dict(zip((matches.target[here] - start).tolist(), matches.query[here].tolist()))
            assert found == dict(enumerate(best))


def test_more_targets_than_queries_and_non_finite_costs_still_match():
    targets = _targets([5])
    masks = torch.randn(1, 1, 3, 8, 12)
    masks[0, 0, 0, 0, 0] = float('nan')
    matches = HungarianMatcher(num_points=32)(torch.randn(1, 1, 3, 4), masks, targets)
    assert len(matches) == 3 and len(set(matches.target.tolist())) == 3


def test_uncertain_points_lie_where_the_mask_changes():
    x = torch.linspace(-10, 10, 40).expand(1, 20, 40)  # undecided at the middle column
    torch.manual_seed(0)
    points = matching.uncertain_points(x, 200, oversample=3.0, importance=0.75)
    assert points.shape == (1, 200, 2)
    distance = (points[0, :150, 0] - 0.5).abs()
    assert distance.max() < 0.2  # 150 of 600 uniform points: the quarter nearest to the middle
    assert (points[0, 150:, 0] - 0.5).abs().max() > 0.3


def test_classification_loss_is_the_weighted_mean():
    logits = torch.tensor([[[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]]], dtype=torch.float64)
    labels = torch.tensor([[1, 2]])
    log_p = logits.log_softmax(-1)[0]
    wanted = -(log_p[0, 1] + 0.1 * log_p[1, 2]) / 1.1
    found = matching.classification_loss(logits, labels, 0.1)
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
