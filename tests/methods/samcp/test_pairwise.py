"""Section 3.1 by hand, and against the unified affinity framework where both must agree."""

import numpy as np
import pytest
import torch
from samcp_cases import Scene

from mmprompt.methods.samcp.pairwise import (
    affinity_prompts,
    compose,
    feature_prompts,
    merge_masks,
    perfect_scores,
)
from mmprompt.methods.samcp.predict import VOID, SAMCPPredictor
from mmprompt.methods.samcp.targets import SAMCPPartAssigner

THINGS, CLASSES = torch.tensor([2, 3]), torch.arange(4)


def answers(table: dict):
    """Prompts that look their answers up."""
    return (
        lambda label, patch: patch in table[label][0],
        lambda label, first, second: (first, second) in table[label][1],
    )


def test_traversal_by_hand():
    """Stuff 0 has two patches, things of class 1 are {1, 3} and {4}; patch 1 is of both classes."""
    prompts = answers({0: ((0, 1), ()), 1: ((1, 3, 4), ((1, 3),)), 2: ((), ())})
    found = compose(5, [0, 1, 2], [1, 2], *prompts)
    assert found.semantic == {0: (0, 1), 1: (1, 3, 4)}
    assert found.instances == [(1, (1, 3)), (1, (4,))]
    assert found.asked == [15, 3]  # every class and patch; pairs of the patches of things


def test_answers_that_contradict_each_other():
    """P1 and P2, P1 and P3 are of one instance, P2 and P3 are not: the paper's example."""
    prompts = answers({0: ((0, 1, 2), ((0, 1), (0, 2)))})
    assert compose(3, [0], [0], *prompts).instances == [(0, (0, 1, 2))]
    assert compose(3, [0], [0], *prompts, conflict='agree').instances == [(0, (0, 1)), (0, (2,))]
    chain = answers({0: ((0, 1, 2, 3), ((0, 3), (1, 2), (2, 3)))})
    assert compose(4, [0], [0], *chain).instances == [(0, (0, 1, 2, 3))]
    agreed = compose(4, [0], [0], *chain, conflict='agree').instances
    assert agreed == [(0, (0, 3)), (0, (1, 2))]
    with pytest.raises(ValueError, match='conflict: expected'):
        compose(3, [0], [0], *prompts, conflict='vote')


def test_the_number_of_prompts():
    """N C of the first, and N (N - 1) / 2 of the second for each class of things that all have."""
    for patches in (1, 7, 20):
        found = compose(patches, range(3), [0, 2], lambda *_: True, lambda *_: True)
        assert found.asked == [3 * patches, 2 * patches * (patches - 1) // 2]
        assert found.instances == [(0, tuple(range(patches))), (2, tuple(range(patches)))]
    assert compose(0, range(3), [0], lambda *_: True, lambda *_: True).instances == []


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('conflict', ['join', 'agree'])
def test_both_ways_give_the_same(seed, conflict):
    """Prompts that answer as the affinities say, merged by traversal, mask by decoded mask."""
    scene = Scene(seed)
    scores = perfect_scores(scene.sample.gt_units, THINGS, CLASSES)
    SAMCPPredictor(instance_min_score=0.5).add(scene.sample, scores)

    found = scores.instance.max(dim=1)
    sure = found.values > 0.5
    labels = THINGS[found.indices[sure]]
    members = scores.affinity_semantic > 0, scores.affinity_instance[sure] > 0
    prompts = affinity_prompts(*members, labels)
    pairs = compose(len(scene.parts), CLASSES.tolist(), THINGS.tolist(), *prompts, conflict)

    masks = torch.from_numpy(scene.parts)
    semantic = torch.full(masks.shape[1:], VOID)
    for label, patches in pairs.semantic.items():
        semantic[merge_masks(masks, patches)] = label
    assert torch.equal(semantic, scene.sample.pred_sem_seg.data[0])

    instances = scene.sample.pred_instances
    assert len(pairs.instances) == len(instances) == 3
    segments = scene.sample.pred_segments
    for label, patches in pairs.instances:
        mask = merge_masks(masks, patches)
        same = (instances.masks == mask).flatten(1).all(dim=1) & (instances.labels == label)
        assert same.sum() == 1
        ids = scene.sample.pred_panoptic_seg.data[0][mask].unique()  # one segment, all of it
        assert len(ids) == 1 and segments.labels[segments.ids == ids] == label
        assert (scene.sample.pred_panoptic_seg.data[0] == ids).sum() == mask.sum()


def test_perfect_scores_hold_the_matching_matrix():
    scene = Scene(0)
    units = scene.sample.gt_units
    for name in ('mask_iop', 'box_iop', 'box_iou'):
        units[name][1] = 0  # an instance without parts is found by nobody
    assigner = SAMCPPartAssigner(low_quality=None)
    scores = perfect_scores(units, THINGS, torch.tensor([0, 1]), assigner)
    parts = assigner(units.mask_iop, units.box_iop, units.box_iou) == 1
    assert torch.equal(scores.affinity_instance[:2] > 0, parts[[0, 2]])
    assert torch.equal(scores.affinity_instance[2:] > 0, torch.eye(len(scene.parts)).bool()[2:])
    assert torch.equal(scores.affinity_semantic > 0, parts[3:5])
    assert (scores.instance[:2] > 0.5).nonzero().tolist() == [
        [row, int(units.labels[unit]) - 2] for row, unit in enumerate((0, 2))
    ]
    assert (scores.instance[2:] < 0.5).all() and (scores.semantic > 0.5).all()


def test_prompts_by_cosine():
    text = torch.eye(3)
    features = torch.tensor([[1.0, 0.1, 0.0], [0.9, 0.0, 0.3], [0.0, 1.0, 0.1]])
    found = compose(3, range(3), [0], *feature_prompts(features, text))
    assert found.semantic == {0: (0, 1), 1: (2,)}
    assert found.instances == [(0, (0, 1))]


def test_merging_nothing():
    masks = torch.from_numpy(np.ones((2, 3, 4), dtype=bool))
    assert merge_masks(masks, []).shape == (3, 4) and not merge_masks(masks, []).any()
    assert merge_masks(masks[:0], []).shape == (3, 4)
