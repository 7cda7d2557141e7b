"""The public code's own losses on the golden decoder output, as far as their targets are known.

`report.json` keeps which query was matched to which mask by the last prediction, but neither the
masks nor their classes. The classes follow from the reported class loss: of all 7^5 possibilities
one gives it, to 1e-8, and the next best is 4e-2 off. The masks cannot be recovered; their losses
are checked against loops in test_criterion.py.
"""

import itertools

import pytest
import torch
from foundation import golden, rule

from mmprompt.common.matching import HungarianMatcher, MaskTargets
from mmprompt.foundation.seem import SEEMDecoder
from mmprompt.foundation.seem.criterion import SetCriterion

LABELS = ((0, 3, 6), (5, 1))  # of the masks of either image


@pytest.fixture(scope='module')
def reported():
    return golden.report()['losses_seem_v0']


def test_weights_are_the_published_ones(reported):
    criterion, matcher = SetCriterion(), HungarianMatcher()
    costs = (matcher.class_weight, matcher.bce_weight, matcher.dice_weight)
    for i, kind in enumerate(('ce', 'bce', 'dice')):
        assert reported['matcher_costs'][kind] == costs[i]
        for layer in range(10):
            assert reported['weight_dict'][f'loss_mask_{kind}_{layer}'] == criterion.weights[i]
    total = sum(
        weight * reported['losses'][f'loss_mask_{kind}_{layer}']
        for kind, weight in zip(('ce', 'bce', 'dice'), criterion.weights)
        for layer in range(10)
    )
    assert total == pytest.approx(reported['total_weighted'], rel=1e-12)


def test_only_one_choice_of_classes_gives_the_reported_loss(reported):
    """The weighted mean over 2 x 101 queries, five of them matched, written out."""
    log_p = golden.arrays('decoder_seem_v0')['pred_logits'].double().log_softmax(-1)
    pairs = [(b, q) for b, (queries, _) in enumerate(reported['indices']) for q in queries]
    rows = torch.stack([log_p[b, q] for b, q in pairs])  # (5, 8)
    others = 0.1 * (log_p[..., -1].sum() - rows[:, -1].sum())
    weight = 0.1 * (2 * 101 - 5) + 5
    choices = torch.tensor(list(itertools.product(range(7), repeat=5)))
    losses = -(others + rows[torch.arange(5), choices].sum(1)) / weight
    error, index = (losses - reported['losses']['loss_mask_ce_0']).abs().topk(2, largest=False)
    assert error[0] < 1e-7 and error[1] > 1e-2
    found = choices[index[0]].tolist()
    expected = [LABELS[b][t] for b, (_, ts) in enumerate(reported['indices']) for t in ts]
    assert found == expected


def test_class_loss_of_the_golden_output_is_the_reported_one(reported):
    """Masks that the reported queries draw lead the matcher to the reported pairs."""
    decoder = golden.built(SEEMDecoder, 'decoder.', torch.float64)
    semantic = rule.tensor(rule.text(8), torch.float64)
    with torch.no_grad():
        output = decoder(golden.features(torch.float64), semantic, aux=True)
    masks = []
    for image, (queries, targets) in enumerate(reported['indices']):
        drawn = [queries[targets.index(t)] for t in range(len(targets))]
        masks.append(output.pred_masks[image, drawn] > 0)
    targets = MaskTargets.from_lists(masks, [torch.tensor(rows) for rows in LABELS])
    criterion = SetCriterion(grid=(112, 112), matcher=dict(grid='native'))

    matches = criterion.matcher(output.pred_logits[None], output.pred_masks[None], targets)
    start = [0, 3]
    found = [
        [x[matches.image == b].tolist() for x in (matches.query, matches.target - start[b])]
        for b in range(2)
    ]
    assert found == reported['indices']
    losses = criterion(output, targets)
    expected = 2 * reported['losses']['loss_mask_ce_0']
    assert losses['loss_class'].item() == pytest.approx(expected, rel=1e-7)
