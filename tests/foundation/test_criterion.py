"""The criterion against loops over layers, images and queries."""

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


def _targets(counts=(2, 0, 3), seed=1):
    rng = torch.Generator().manual_seed(seed)
    masks = [torch.rand(n, 16, 32, generator=rng) > 0.5 for n in counts]
    labels = [torch.randint(CLASSES, (n,), generator=rng) for n in counts]
    return MaskTargets.from_lists(masks, labels)


def _slow(output, targets, criterion):
    """Per layer: (class, bce, dice), unweighted, with the criterion's own matcher."""
    points = matching.grid_points(*SIZE)
    rows = []
    for layer in (*output.aux, output):
        matches = criterion.matcher(layer.pred_logits[None], layer.pred_masks[None], targets)
        wanted = torch.full((BATCH, QUERIES), CLASSES)
        bce = dice = 0.0
        for image, query, target in zip(matches.image, matches.query, matches.target):
            wanted[image, query] = targets.labels[target]
            x = layer.pred_masks[image, query].flatten()
            mask = targets.masks[target][None, None].double()
            y = matching.sample_maps(mask, points[None].double())[0, 0]
            bce += F.binary_cross_entropy_with_logits(x, y)
            s = x.sigmoid()
            dice += 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)
        weight = torch.ones(CLASSES + 1, dtype=torch.float64)
        weight[-1] = 0.1
        ce = F.cross_entropy(layer.pred_logits.flatten(0, 1), wanted.flatten(), weight)
        count = len(targets.labels)
        rows.append([float(ce.detach()), float(bce.detach()) / count, float(dice.detach()) / count])
    return rows


@pytest.mark.parametrize('num_aux', [None, 1])
def test_losses_equal_the_loops(num_aux):
    output, targets = _output(), _targets()
    criterion = SetCriterion(grid='native', matcher=dict(grid='native'), num_aux=num_aux)
    found = criterion(output, targets)
    rows = _slow(output, targets, criterion)
    aux = rows[:-1] if num_aux is None else rows[-2:-1]
    for i, (name, weight) in enumerate([('class', 2), ('bce', 5), ('dice', 5)]):
        assert float(found[f'loss_{name}']) == pytest.approx(weight * rows[-1][i], rel=1e-5)
        wanted = weight * sum(row[i] for row in aux)
        assert float(found[f'aux_loss_{name}']) == pytest.approx(wanted, rel=1e-5)
    assert 'loss_dense' not in found


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
    with pytest.raises(ValueError, match='grid'):
        SetCriterion(grid='nativ')
    with pytest.raises(ValueError, match='dense_loss'):
        SetCriterion(dense_loss='focal')
