"""The criterion against loops over layers, images and queries."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmprompt.common import matching
from mmprompt.common.mask_merge import semantic_scores
from mmprompt.common.matching import MaskTargets
from mmprompt.foundation.seem.criterion import SetCriterion, dense_cross_entropy, dense_nll
from mmprompt.foundation.seem.features import SEEMOutput, StrokeOutput

BATCH, QUERIES, CLASSES, DIM, SIZE = 3, 5, 4, 6, (4, 8)


def _output(layers=3, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(BATCH, DIM, *SIZE, dtype=torch.float64, requires_grad=True)

    def one():
        logits = torch.randn(BATCH, QUERIES, CLASSES + 1, dtype=torch.float64)
        embed = torch.randn(BATCH, QUERIES, DIM, dtype=torch.float64)
        return SEEMOutput(logits.requires_grad_(), embed.requires_grad_(), features, queries=embed)

    last = one()
    last.aux = [one() for _ in range(layers - 1)]
    return last


def _masks_and_labels(counts=(2, 0, 3), seed=1):
    rng = torch.Generator().manual_seed(seed)
    masks = [torch.rand(n, 16, 32, generator=rng) > 0.5 for n in counts]
    labels = [torch.randint(CLASSES, (n,), generator=rng) for n in counts]
    return masks, labels


def _targets(counts=(2, 0, 3), seed=1):
    return MaskTargets.from_lists(*_masks_and_labels(counts, seed))


def _at_centres(maps, grid):
    """Values (N, P) of (N, H, W) maps at the centres of a grid's cells, by hand.

    Pixel i of H covers i/H to (i+1)/H; between pixel centres values are bilinear; around the map
    there are zeros.
    """
    height, width = maps.shape[-2:]
    maps = maps.double()
    values = []
    for row, column in itertools.product(range(grid[0]), range(grid[1])):
        y, x = (row + 0.5) / grid[0] * height - 0.5, (column + 0.5) / grid[1] * width - 0.5
        value = torch.zeros(len(maps), dtype=torch.float64)
        for i, j in itertools.product(
            (math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)
        ):
            if 0 <= i < height and 0 <= j < width:
                value = value + maps[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
        values.append(value)
    return torch.stack(values, 1)


def _pair_losses(x, y):
    """BCE and Dice of one predicted mask with one true one, both (P,)."""
    s = 1 / (1 + (-x).exp())
    bce = -(y * s.log() + (1 - y) * (1 - s).log()).mean()
    return bce, 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)


def _slow(output, masks, labels, cost_grid, loss_grid):
    """Per prediction (class, BCE, Dice), unweighted, from per-image masks and labels.

    Every assignment is tried; the class loss is a weighted mean over the whole batch, the mask
    losses are divided by the number of masks of the whole batch.
    """
    rows = []
    for layer in (*output.aux, output):
        numerator = denominator = bce = dice = 0.0
        for image in range(len(masks)):
            probs = layer.pred_logits[image].softmax(-1)
            truth = _at_centres(masks[image], cost_grid)
            values = _at_centres(layer.pred_masks[image], cost_grid)
            count, cost = len(truth), {}
            for q, t in itertools.product(range(len(values)), range(count)):
                pair = _pair_losses(values[q], truth[t])
                cost[q, t] = (5 * sum(pair) - 2 * probs[q, labels[image][t]]).item()
            best = min(
                itertools.permutations(range(len(values)), count),
                key=lambda queries: sum(cost[q, t] for t, q in enumerate(queries)),
            )
            for q in range(len(values)):
                matched = q in best
                label = int(labels[image][best.index(q)]) if matched else probs.shape[1] - 1
                weight = 1.0 if matched else 0.1
                numerator = numerator - weight * probs[q, label].log()
                denominator += weight
            truth = _at_centres(masks[image], loss_grid)
            values = _at_centres(layer.pred_masks[image], loss_grid)
            for t, q in enumerate(best):
                pair = _pair_losses(values[q], truth[t])
                bce, dice = bce + pair[0], dice + pair[1]
        total = sum(map(len, masks))
        rows.append([numerator / denominator, bce / total, dice / total])
    return rows


@pytest.mark.parametrize('loss_grid', ['native', (5, 7)])
@pytest.mark.parametrize('cost_grid', ['native', (3, 9)])
@pytest.mark.parametrize('layers, num_aux', [(10, None), (3, 1)])
def test_losses_equal_the_loops(layers, num_aux, cost_grid, loss_grid):
    """Ten predictions, each matched anew; an image without masks; pixels of no mask (void)."""
    output = _output(layers=layers)
    masks, labels = _masks_and_labels()
    targets = MaskTargets.from_lists(masks, labels)
    criterion = SetCriterion(grid=loss_grid, matcher=dict(grid=cost_grid), num_aux=num_aux)
    found = criterion(output, targets)
    grids = [SIZE if grid == 'native' else grid for grid in (cost_grid, loss_grid)]
    rows = _slow(output, masks, labels, *grids)
    aux = rows[:-1] if num_aux is None else rows[-1 - num_aux : -1]
    variables = [output.mask_features]
    for layer in (*output.aux, output):
        variables += [layer.pred_logits, layer.mask_embed]
    names = [('class', 2), ('bce', 5), ('dice', 5)]
    for i, (name, weight) in enumerate(names):
        assert found[f'loss_{name}'].dtype == torch.float64
        wanted = weight * rows[-1][i], weight * sum(row[i] for row in aux)
        for value, expected in zip((found[f'loss_{name}'], found[f'aux_loss_{name}']), wanted):
            assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    slow = sum(
        weight * sum(row[i] for row in (*aux, rows[-1])) for i, (_, weight) in enumerate(names)
    )
    options = dict(allow_unused=True)
    pairs = zip(
        torch.autograd.grad(sum(found.values()), variables, **options),
        torch.autograd.grad(slow, variables, **options),
    )
    for gradient, expected in pairs:
        assert (gradient is None) == (expected is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert 'loss_dense' not in found


def test_published_numbers_are_the_defaults(monkeypatch):
    """12544 points; for the losses 3 times as many are drawn, three quarters are undecided ones."""
    drawn = []
    draw = matching.random_points

    def spy(rows, num, device=None):
        drawn.append((rows, num))
        return draw(rows, num, device)

    monkeypatch.setattr(matching, 'random_points', spy)
    SetCriterion()(_output(layers=10), _targets((2, 0, 3)))
    # One set of points per image; then per matched pair of the ten predictions.
    assert drawn == [(BATCH, 12544), (50, 3 * 12544), (50, 12544 // 4)]


def test_points_at_all_cells_equal_the_native_grid(monkeypatch):
    output, targets = _output(), _targets()
    native = SetCriterion(grid='native', matcher=dict(grid='native'))(output, targets)
    monkeypatch.setattr(
        matching,
        'uncertain_points',
        lambda maps, *_: matching.grid_points(*SIZE).to(maps).expand(len(maps), -1, -1),
    )
    points = SetCriterion(matcher=dict(grid='native'))(output, targets)
    for name in native:
        torch.testing.assert_close(points[name], native[name], rtol=1e-4, atol=1e-6)


def test_random_points_come_near_the_native_grid():
    output, targets = _output(), _targets()
    native = SetCriterion(grid='native', matcher=dict(grid='native'))(output, targets)
    points = SetCriterion(num_points=4000, importance=0.0, matcher=dict(grid='native'))
    for name, value in points(output, targets).items():
        assert float(value) == pytest.approx(float(native[name]), rel=0.2)


def test_ignored_pixels_change_neither_matches_nor_mask_losses():
    output = _output(layers=2)
    masks, labels = _masks_and_labels()
    ignore = torch.zeros(BATCH, 16, 32, dtype=torch.bool)
    ignore[..., 16:] = True
    targets = MaskTargets.from_lists(masks, labels)
    targets.ignore = ignore
    criterion = SetCriterion(grid='native', matcher=dict(grid='native'))
    losses = []
    for value in (0.0, 30.0):
        features = output.mask_features.detach().clone()
        features[..., 4:] = value
        aux, last = (replace(x, mask_features=features, aux=[]) for x in (*output.aux, output))
        last.aux = [aux]
        losses.append(criterion(last, targets))
    assert all(value > 0 for value in losses[0].values())
    torch.testing.assert_close(*losses)
    plain = criterion(last, MaskTargets.from_lists(masks, labels))
    assert not torch.isclose(plain['loss_bce'], losses[1]['loss_bce'])


@pytest.mark.parametrize('grid', ['native', None])
def test_an_image_of_ignored_pixels_alone_has_no_mask_loss(grid):
    targets = _targets()
    targets.ignore = torch.ones(BATCH, 16, 32, dtype=torch.bool)
    losses = SetCriterion(grid=grid)(_output(), targets)
    assert losses['loss_bce'] == 0 and abs(losses['loss_dice']) < 1e-12


def test_every_prediction_gets_a_gradient():
    output, targets = _output(), _targets()
    criterion = SetCriterion(grid='native', matcher=dict(grid=(4, 4)), dense_weight=1.0)
    labels = torch.randint(CLASSES, (BATCH, 16, 32))
    sum(criterion(output, targets, labels).values()).backward()
    for layer in (*output.aux, output):
        assert layer.pred_logits.grad.abs().sum() > 0
        assert layer.mask_embed.grad.abs().sum() > 0
    assert output.mask_features.grad.abs().sum() > 0


def test_a_batch_without_masks_is_all_no_object():
    output, targets = _output(layers=1), _targets((0, 0, 0))
    for grid in ('native', None):
        found = SetCriterion(grid=grid, num_points=8)(output, targets)
        sum(found.values()).backward()
        assert float(found['loss_bce']) == float(found['loss_dice']) == 0
        wanted = -output.pred_logits.log_softmax(-1)[..., -1].mean()
        assert float(found['loss_class']) == pytest.approx(2 * float(wanted), rel=1e-5)


def test_dense_losses_leave_void_out():
    torch.manual_seed(0)
    scores = torch.rand(2, CLASSES, 3, 3, dtype=torch.float64) + 0.1
    labels = torch.randint(CLASSES, (2, 3, 3))
    labels[0, 0, 0] = 255
    nll, ce = [], []
    for b, y, x in (labels != 255).nonzero().tolist():
        s = scores[b, :, y, x]
        nll.append(-(s[labels[b, y, x]] / s.sum()).log())
        ce.append(-s.log_softmax(0)[labels[b, y, x]])
    assert float(dense_nll(scores, labels)) == pytest.approx(float(sum(nll) / 17), rel=1e-4)
    assert float(dense_cross_entropy(scores, labels)) == pytest.approx(float(sum(ce) / 17))
    assert float(dense_nll(scores, torch.full_like(labels, 255))) == 0


def test_dense_term_uses_the_nearest_label():
    output, targets = _output(layers=2), _targets()
    small = torch.randint(CLASSES, (BATCH, *SIZE))
    labels = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    criterion = SetCriterion(
        grid='native',
        matcher=dict(grid='native'),
        dense_weight=3.0,
        dense_loss='ce',
        dense_aux=True,
    )
    found = criterion(output, targets, labels)
    for name, layer in (('loss_dense', output), ('aux_loss_dense', output.aux[0])):
        scores = semantic_scores(layer.pred_logits.float(), layer.pred_masks.float())
        wanted = 3 * dense_cross_entropy(scores, small)
        assert float(found[name]) == pytest.approx(float(wanted), rel=1e-5)


def test_strokes_train_the_query_that_fits_best():
    torch.manual_seed(0)
    targets = _targets((2, 0, 3))
    rows = torch.tensor([1, -1, 4])
    output = _output(layers=1)
    embed = output.mask_embed
    positive = torch.randn(BATCH, DIM, dtype=torch.float64)
    strokes = StrokeOutput(embed, positive, torch.zeros_like(positive), output.mask_features)
    found = SetCriterion().stroke_losses(strokes, targets, rows)
    points = matching.grid_points(*SIZE).double()
    total = torch.zeros(3, dtype=torch.float64)
    for image, row in ((0, 1), (2, 4)):
        y = matching.sample_maps(targets.masks[row][None, None].double(), points[None])[0, 0]
        costs = []
        for query in range(QUERIES):
            x = strokes.pred_masks[image, query].flatten().detach()
            s = x.sigmoid()
            bce = F.binary_cross_entropy_with_logits(x, y)
            costs.append((bce, 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)))
        best = min(range(QUERIES), key=lambda q: float(sum(costs[q])))
        ce = -(embed[image] @ positive[image]).log_softmax(0)[best].detach()
        total += torch.stack([ce, *costs[best]]) / 2
    names = ('class', 'bce', 'dice')
    for name, weight, value in zip(names, (0.4, 1.0, 1.0), total.tolist()):
        assert float(found[f'stroke_loss_{name}']) == pytest.approx(weight * value, rel=1e-5)
    none = SetCriterion().stroke_losses(strokes, targets, torch.full((3,), -1))
    assert all(float(v) == 0 for v in none.values())


def test_unknown_choices_are_refused():
    for grid in ('nativ', (4,), (0, 4), 7):
        with pytest.raises(ValueError, match='SetCriterion.grid'):
            SetCriterion(grid=grid)
        with pytest.raises(ValueError, match='HungarianMatcher.grid'):
            SetCriterion(matcher=dict(grid=grid))
    with pytest.raises(ValueError, match='dense_loss'):
        SetCriterion(dense_loss='focal')
