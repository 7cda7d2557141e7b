"""Table 9's numbers against loops over painted masks, and greedy merging against all subsets."""

import itertools

import numpy as np
import pytest

from mmprompt.common.patches import PatchSet
from mmprompt.common.rle import parse
from mmprompt.evaluation.proposal_quality import (
    COCO_SIZES,
    FINE_SIZES,
    Overlaps,
    greedy_members,
    joined,
    object_quality,
    of_size,
    part_members,
    summary,
)


def blobs(random, count: int, size=(23, 31)) -> np.ndarray:
    """Random overlapping rectangles (count, H, W) with holes."""
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        top, left = random.integers(0, size[0] - 4), random.integers(0, size[1] - 4)
        high, wide = random.integers(3, 16, 2)
        mask[top : top + high, left : left + wide] = True
        mask &= random.random(size) < 0.9
    return masks


def runs(masks: np.ndarray):
    return parse(PatchSet.from_masks(masks).rles, masks.shape[1:])


def overlaps_of(objects: np.ndarray, patches: np.ndarray) -> Overlaps:
    return Overlaps(runs(objects), runs(patches))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def union(masks: np.ndarray, chosen) -> np.ndarray:
    return np.logical_or.reduce(masks[list(chosen)], axis=0, initial=False)


@pytest.mark.parametrize('seed', range(6))
def test_all_numbers_are_those_of_a_loop(seed):
    random = np.random.default_rng(seed)
    objects, patches = blobs(random, 5), blobs(random, 9)
    found, every = object_quality(overlaps_of(objects, patches)), []
    for k, true in enumerate(objects):
        each = [iou(true, patch) for patch in patches]
        assert found.areas[k] == true.sum()
        assert found.best[k] == pytest.approx(max(each))
        assert found.best_patch[k] == (int(np.argmax(each)) if max(each) else -1)
        inside = [i for i, p in enumerate(patches) if (p & true).sum() > 0.8 * p.sum()]
        merged = union(patches, inside or [int(np.argmax(each))])
        assert found.parts[k] == pytest.approx(iou(true, merged))
        assert found.covered[k] == pytest.approx(
            (union(patches, range(9)) & true).sum() / true.sum()
        )
        chosen = {int(np.argmax(each))} if max(each) else set()
        if iou(true, merged) > max(each):
            chosen = set(inside)
        value = iou(true, union(patches, chosen))
        while chosen:  # the definition of greedy
            tries = [iou(true, union(patches, chosen ^ {i})) for i in range(9)]
            if max(tries) <= value:
                break
            value = max(tries)
            chosen ^= {int(np.argmax(tries))}
        assert found.greedy[k] == pytest.approx(value)
        subsets = (s for n in range(10) for s in itertools.combinations(range(9), n))
        limit = max(iou(true, union(patches, s)) for s in subsets)
        assert found.best[k] <= found.greedy[k] + 1e-12 and found.greedy[k] <= limit + 1e-12
        assert found.parts[k] <= found.greedy[k] + 1e-12
        every.append((value, limit))
    assert np.mean(every, axis=0)[0] > 0.97 * np.mean(every, axis=0)[1]


def test_disjoint_patches_of_more_than_half_never_hurt_and_greedy_finds_them_all():
    random = np.random.default_rng(3)
    true = np.zeros((1, 20, 20), bool)
    true[0, 4:16, 4:16] = True
    cells = np.arange(400).reshape(20, 20)
    cells = np.stack(
        [(cells // 80 == i) & (cells % 20 // 4 == j) for i in range(5) for j in range(5)]
    )
    cells &= random.random(cells.shape) < 0.8
    overlaps = overlaps_of(true, cells)
    limit = overlaps.union_iou(greedy_members(overlaps))[0]
    assert limit >= overlaps.union_iou(part_members(overlaps, 0.5))[0] > overlaps.iou.max()
    parts = np.flatnonzero(part_members(overlaps, 0.5)[0])
    order = [
        overlaps.union_iou(np.isin(np.arange(25), parts[:n])[None])[0]
        for n in range(1, len(parts) + 1)
    ]
    assert (np.diff(order) > 0).all()


def test_the_summary_is_that_of_a_loop():
    random = np.random.default_rng(0)
    ious = np.round(random.random(400), 2)
    ious[:4] = 0.25, 0.5, 0.75, 0.5  # not higher than themselves
    found = summary(ious)
    assert found['mIoU'] == pytest.approx(100 * sum(ious) / 400)
    above = [x for x in ious if x > 0.5]
    assert found['mIoU>0.5'] == pytest.approx(100 * sum(above) / len(above))
    for x in (0.25, 0.5, 0.75):
        missed = sum(not value > x for value in ious)
        assert found[f'MR_{x:g}'] == pytest.approx(100 * missed / 400)
    assert all(np.isnan(value) for value in summary(np.zeros(0)).values())


def test_no_patches_and_no_objects():
    random = np.random.default_rng(1)
    some, none = blobs(random, 3), blobs(random, 0)
    found = object_quality(overlaps_of(some, none))
    for column in (found.best, found.parts, found.greedy, found.covered):
        assert column.tolist() == [0, 0, 0]
    assert found.best_patch.tolist() == [-1, -1, -1]
    assert object_quality(overlaps_of(none, some)).best.shape == (0,)
    assert object_quality(overlaps_of(none, none)).areas.shape == (0,)
    away = np.zeros((2, 23, 31), bool)
    away[0, :2, :2], away[1, -2:, -2:] = True, True
    found = object_quality(overlaps_of(away[:1], away[1:]))
    assert found.best.tolist() == found.greedy.tolist() == [0] and found.best_patch[0] == -1


def test_sizes_divide_all_objects():
    random = np.random.default_rng(2)
    objects, patches = blobs(random, 6), blobs(random, 4)
    quality = joined([object_quality(overlaps_of(objects, patches))] * 2)._replace(
        areas=np.array([1, 63, 64, 1023, 1024, 9215, 9216, 36863, 36864, 147455, 147456, 999999])
    )
    for sizes in (COCO_SIZES, FINE_SIZES):
        parts = [of_size(quality, *limits) for limits in sizes.values()]
        assert np.concatenate([p.areas for p in parts]).tolist() == quality.areas.tolist()
    assert [len(of_size(quality, *limits).areas) for limits in COCO_SIZES.values()] == [4, 2, 6]


def test_parts_replace_the_best_patch_even_where_they_fit_worse():
    true = np.zeros((1, 10, 10), bool)
    true[0, 2:8, 2:8] = True
    patches = np.zeros((2, 10, 10), bool)
    patches[0, 1:9, 1:7], patches[1, 4:6, 4:6] = True, True  # IoP 30/48, and 1
    found = object_quality(overlaps_of(true, patches))
    assert found.best[0] == pytest.approx(30 / 54) and found.parts[0] == pytest.approx(4 / 36)
    assert found.greedy[0] == pytest.approx(30 / 54)
    assert object_quality(overlaps_of(true, patches), 0.6).parts[0] == pytest.approx(30 / 54)
