"""The five costs against loops in float64, and the assignment against all permutations."""

import itertools

import pytest
import torch
from samcp_cases import batch_of
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp import matching_costs
from mmprompt.methods.samcp.matching_costs import COSTS, Queries, SAMCPHungarianAssigner
from mmprompt.methods.samcp.targets import SAMCPPartAssigner, build_targets
from mmprompt.registry import TASK_UTILS

SIZES = [(8, 6), (0, 3), (10, 2), (6, 0), (4, 7)]  # more units than patches, none of one, of both
BAND = SAMCPPartAssigner(tau=0.7, low_quality=None, ignore_band=0.5)


def targets_of(output, samples):
    classes = output.thing_classes, output.semantic_classes
    return build_targets(samples, output.boxes, *classes, BAND).instance


def focal(logit, target) -> float:
    """Binary focal loss, alpha 0.25 and gamma 2, of single numbers."""
    return float(sigmoid_focal_loss(logit, torch.tensor(float(target)).to(logit), 0.25, 2.0))


def looped(name, output, targets, layer, image, query, unit) -> float:
    """One cost of one pair, from what is there alone."""
    patches = targets.num_patches[image]
    row = targets.parts[image, unit, :patches]
    affinity = output.affinity_instance[layer, image, query, :patches].detach()
    counted = row >= 0
    if name == 'cls':
        logit = output.instance_logits[layer, image, query, targets.labels[image, unit]].detach()
        return focal(logit, 1) - focal(logit, 0)
    if name == 'mfl':
        total = sum(focal(a, t) for a, t in zip(affinity[counted], row[counted]))
        return total / max(int(row.eq(1).sum()), 1)
    if name == 'dice':
        probs, truth = affinity[counted].sigmoid(), row[counted].double()
        return float(1 - (2 * (probs * truth).sum() + 1) / (probs.sum() + truth.sum() + 1))
    mine = output.boxes_instance[layer, image, query]
    true = targets.boxes[image, unit].to(mine)
    if name == 'bbox':
        return float((mine - true).abs().sum())
    return -float(generalized_box_iou(mine[None], true[None]))


@pytest.mark.parametrize('name', COSTS)
def test_a_cost_is_the_loop(name):
    output, samples = batch_of(0, SIZES)
    targets = targets_of(output, samples)
    assert (targets.parts == -1).any() and (targets.parts == 1).any()
    cost = TASK_UTILS.build(dict(type=COSTS[name], weight=3.0))
    table = cost(Queries.of(output), targets)
    assert table.dtype == torch.float64 and table.isfinite().all()
    seen = 0
    for layer, image in itertools.product(range(len(table)), range(len(samples))):
        for query in range(targets.num_patches[image]):
            for unit in targets.real[image].nonzero()[:, 0].tolist():
                want = 3 * looped(name, output, targets, layer, image, query, unit)
                assert float(table[layer, image, query, unit]) == pytest.approx(want, abs=1e-9)
                seen += 1
    assert seen == 3 * (6 * 4 + 2 * 5 + 7 * 2)


@pytest.mark.parametrize('left_out', [None, *COSTS])
def test_the_assignment_is_the_best_of_all(left_out):
    """Table 3 leaves single costs out."""
    output, samples = batch_of(1, SIZES, layers=2)
    targets = targets_of(output, samples)
    assigner = SAMCPHungarianAssigner(**({left_out: None} if left_out else {}))
    assert len(assigner.costs) == (4 if left_out else 5)
    found = assigner(Queries.of(output), targets)
    kept = [name for name in COSTS if name != left_out]
    for layer, image in itertools.product(range(2), range(len(samples))):
        units = targets.real[image].nonzero()[:, 0].tolist()
        patches = targets.num_patches[image]

        prices = {
            (q, u): sum(
                (2 if name == 'cls' else 1) * looped(name, output, targets, layer, image, q, u)
                for name in kept
            )
            for q, u in itertools.product(range(patches), units)
        }

        few, many = sorted([list(range(patches)), units], key=len)
        swap = few is units
        chosen = [
            [(q, u) if not swap else (u, q) for q, u in zip(few, order)]
            for order in itertools.permutations(many, len(few))
        ]
        pairs = [(q, int(u)) for q, u in enumerate(found.unit[layer, image]) if u >= 0]
        assert len(pairs) == len(few)
        best = min(sum(prices[pair] for pair in some) for some in chosen)
        assert sum(prices[pair] for pair in pairs) == pytest.approx(best, abs=1e-9)
        back = [(int(q), u) for u, q in enumerate(found.query[layer, image]) if q >= 0]
        assert sorted(back) == sorted(pairs)


def test_units_that_are_not_wanted_take_no_part():
    output, samples = batch_of(1, SIZES)
    targets = targets_of(output, samples)
    wanted = targets.real.clone()
    wanted[0, 1] = False
    found = SAMCPHungarianAssigner()(Queries.of(output), targets, wanted)
    assert not (found.unit[:, 0] == 1).any() and (found.query[:, 0, 1] == -1).all()
    assert (found.unit[:, 0] >= 0).sum() == 3 * 3


def test_one_transfer_for_all_layers_and_images(monkeypatch):
    output, samples = batch_of(2, [(8, 6)] * 4, layers=6)
    targets = targets_of(output, samples)
    calls = []
    plain = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: calls.append(self.shape) or plain(self))
    for name in ('item', 'tolist', 'nonzero', '__bool__', '__int__', '__float__'):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *_: pytest.fail('asks the device'))
    SAMCPHungarianAssigner()(Queries.of(output), targets)
    assert calls == [(6, 4, 7, 8)]


def test_what_is_no_number_is_no_error_of_the_solver():
    output, samples = batch_of(3, [(8, 6)])
    output.affinity_instance.data[0, 0, 0, 0] = float('nan')
    found = SAMCPHungarianAssigner()(Queries.of(output), targets_of(output, samples))
    assert ((found.unit >= 0).sum(-1) == 4).all()


def test_half_precision_is_widened():
    output, samples = batch_of(3, [(8, 6)], dtype=torch.bfloat16)
    queries = Queries.of(output)
    assert queries.affinity.dtype == queries.logits.dtype == queries.boxes.dtype == torch.float32
    wide, _ = batch_of(3, [(8, 6)], dtype=torch.bfloat16)
    for name in ('affinity_instance', 'instance_logits', 'boxes_instance'):
        setattr(wide, name, getattr(wide, name).float())
    targets = targets_of(output, samples)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = SAMCPHungarianAssigner()(queries, targets)
    assert torch.equal(found.unit, SAMCPHungarianAssigner()(Queries.of(wide), targets).unit)


def test_a_class_that_is_no_thing_is_refused():
    output, samples = batch_of(3, [(6, 4)], things=(1, 3))
    samples[0].gt_units.labels[0] = 2
    with pytest.raises(UserError, match='thing_classes'):
        SAMCPHungarianAssigner()(Queries.of(output), targets_of(output, samples))


def test_costs_of_ones_own(monkeypatch):
    class Nearest:
        def __init__(self, weight):
            self.weight = weight

        def __call__(self, queries, targets):
            far = queries.boxes[..., :, None, 0] - targets.boxes[:, None, :, 0].to(queries.boxes)
            return self.weight * far.abs()

    monkeypatch.setitem(TASK_UTILS.module_dict, 'Nearest', Nearest)
    none = dict.fromkeys(COSTS)
    with pytest.raises(ValueError, match='at least one cost'):
        SAMCPHungarianAssigner(**none)
    output, samples = batch_of(4, [(2, 5)])
    targets = targets_of(output, samples)
    found = SAMCPHungarianAssigner(**none, extra=[dict(type='Nearest', weight=1.0)])(
        Queries.of(output), targets
    )
    far = (output.boxes_instance[:, 0, :, 0] - targets.boxes[0, 0, 0]).abs()
    assert torch.equal(found.query[:, 0, 0], far.argmin(dim=1))
    with_config = SAMCPHungarianAssigner(cls=dict(type='SAMCPClassCost', weight=4.0, alpha=0.5))
    assert with_config.costs[0].weight == 4.0 and with_config.costs[0].alpha == 0.5


def test_boxes_without_area_have_a_cost():
    a = torch.tensor([[[[0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.4, 0.4]]]])
    b = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.1, 0.1, 0.4, 0.4]]])
    found = matching_costs.pairwise_giou(a, b)
    assert found.isfinite().all() and found.abs().max() <= 1
    assert float(found[0, 0, 2, 1]) == pytest.approx(1)
