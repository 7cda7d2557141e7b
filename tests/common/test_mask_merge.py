"""Merging masks, against a pixel-by-pixel twin of the published rules."""

import numpy as np
import pytest
import torch

from mmprompt.common import mask_merge, upsampling

THINGS = (2, 3)


def _random_case(seed, queries=9, classes=4, size=(7, 8)):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(queries, classes + 1, generator=rng, dtype=torch.float64) * 3
    masks = torch.randn(queries, *size, generator=rng, dtype=torch.float64) * 3
    return logits, masks


def _slow_panoptic(logits, masks, things, score_threshold, overlap_threshold):
    """One query after the other, one pixel after the other."""
    logits, masks = logits.numpy(), masks.numpy()
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sigma = 1 / (1 + np.exp(-masks))
    none = logits.shape[1] - 1
    kept = [
        q for q in range(len(logits))
        if probs[q].argmax() != none and probs[q].max() > score_threshold
    ]  # fmt: skip
    answer, segments, stuff = np.zeros(masks.shape[1:], int), [], {}
    winner = np.full(masks.shape[1:], -1)
    for y, x in np.ndindex(*winner.shape):
        values = [probs[q].max() * sigma[q, y, x] for q in kept]
        if values:
            winner[y, x] = kept[int(np.argmax(values))]
    for q in kept:
        label = int(probs[q].argmax())
        area, won = (sigma[q] >= 0.5).sum(), (winner == q).sum()
        mask = (winner == q) & (sigma[q] >= 0.5)
        if area == 0 or mask.sum() == 0 or won / area < overlap_threshold:
            continue
        if label not in things and label in stuff:
            answer[mask] = stuff[label]
            continue
        segments.append(label)
        answer[mask] = len(segments)
        if label not in things:
            stuff[label] = len(segments)
    return answer, segments


def test_semantic_scores_are_the_sum_over_queries():
    logits, masks = _random_case(0)
    found = mask_merge.semantic_scores(logits[None], masks[None])[0]
    probs = logits.softmax(-1)
    for c, y, x in [(0, 0, 0), (3, 6, 7), (1, 2, 5)]:
        wanted = sum(float(probs[q, c]) / (1 + np.exp(-float(masks[q, y, x]))) for q in range(9))
        assert float(found[c, y, x]) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize('seed', range(20))
def test_panoptic_equals_the_slow_twin(seed):
    logits, masks = _random_case(seed)
    score, overlap = 0.3 + 0.02 * seed, 0.1 + 0.03 * seed
    found = mask_merge.panoptic(logits, masks, THINGS, score, overlap)
    answer, labels = _slow_panoptic(logits, masks, THINGS, score, overlap)
    assert found.seg_map.tolist() == answer.tolist()
    assert found.labels.tolist() == labels
    assert found.ids.tolist() == list(range(1, len(labels) + 1))


def test_panoptic_merges_stuff_and_keeps_things_apart():
    logits = torch.full((4, 5), -9.0)
    logits[0, 0] = logits[1, 0] = logits[2, 2] = logits[3, 2] = 9.0
    masks = torch.full((4, 4, 4), -9.0)
    for q in range(4):
        masks[q, q] = 9.0
    found = mask_merge.panoptic(logits, masks, THINGS)
    assert found.labels.tolist() == [0, 2, 2]
    assert found.seg_map[:, 0].tolist() == [1, 1, 2, 3]


def test_panoptic_without_any_object_is_unlabelled():
    logits = torch.zeros(3, 5)
    logits[:, -1] = 9.0
    found = mask_merge.panoptic(logits, torch.ones(3, 4, 4), THINGS)
    assert found.seg_map.abs().sum() == 0 and len(found.ids) == 0


@pytest.mark.parametrize('things', [None, THINGS])
def test_instances_equal_a_loop(things):
    logits, masks = _random_case(5)
    found = mask_merge.instances(logits, masks, top_k=12, thing_classes=things)
    probs = logits.softmax(-1)[:, :-1]
    pairs = sorted(((float(probs[q, c]), q, c) for q in range(9) for c in range(4)), reverse=True)
    wanted = []
    for score, q, c in pairs[:12]:
        if things is None or c in things:
            mask = masks[q] > 0
            quality = float((masks[q].sigmoid() * mask).sum() / (mask.sum() + 1e-6))
            wanted.append((score * quality, c, mask))
    wanted.sort(key=lambda row: -row[0])
    assert found.scores.tolist() == pytest.approx([w[0] for w in wanted], rel=1e-9)
    assert found.labels.tolist() == [w[1] for w in wanted]
    assert all(torch.equal(a, w[2]) for a, w in zip(found.masks, wanted))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('output_size', [(33, 50), (70, 41), (1, 90)])
def test_masks_made_a_tile_at_a_time_give_the_same(seed, output_size, monkeypatch):
    logits, masks = _random_case(seed, size=(8, 16))
    maps = upsampling.upsample_masks(masks, (27, 60), output_size)
    whole = maps.dense()
    labels = mask_merge.semantic_scores(logits[None], whole[None])[0].argmax(0)
    segments = mask_merge.panoptic(logits, whole, THINGS, 0.4, 0.2)
    found = mask_merge.instances(logits, whole, 20)
    monkeypatch.setattr(upsampling, 'TILE_VALUES', 300)
    for given in (maps, whole):
        assert torch.equal(mask_merge.semantic(logits, given), labels)
        for mine, theirs in zip(mask_merge.panoptic(logits, given, THINGS, 0.4, 0.2), segments):
            assert torch.equal(mine, theirs)
        again = mask_merge.instances(logits, given, 20)
        assert torch.equal(again.masks, found.masks) and torch.equal(again.labels, found.labels)
        torch.testing.assert_close(again.scores, found.scores, rtol=1e-12, atol=0)


def test_nothing_kept_is_nothing_found():
    logits, masks = _random_case(0)
    found = mask_merge.instances(logits, masks, thing_classes=())
    assert found.masks.shape == (0, 7, 8) and len(found.scores) == 0


def test_semantic_of_many_is_semantic_of_each_with_the_mean_score_of_each_class():
    generator = torch.Generator().manual_seed(3)
    masks = 4 * torch.randn(6, 20, 30, generator=generator, dtype=torch.float64)
    lists = [4 * torch.randn(6, count, generator=generator).double() for count in (4, 9, 2)]
    for logits, (labels, means) in zip(lists, mask_merge.semantic_of_many(lists, masks)):
        assert torch.equal(labels, mask_merge.semantic(logits, masks))
        scores = mask_merge.semantic_scores(logits[None], masks[None])[0]
        for index, mean in enumerate(means):
            won = labels == index
            expected = scores[index][won].mean() if won.any() else torch.zeros(())
            torch.testing.assert_close(mean, expected.double())
