"""Patches, against painted masks and torchvision's RoIAlign."""

import pickle
import time

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou as torchvision_box_iou
from torchvision.ops import roi_align

from mmprompt.common import rle
from mmprompt.common.errors import UserError
from mmprompt.common.patches import (
    PatchSet,
    box_iop,
    box_iou,
    cropped,
    encode,
    iop,
    whole_pixels,
)
from tests.patch_sets import SIZES, random_masks


@pytest.fixture(params=SIZES, ids=str)
def masks(request):
    return random_masks(np.random.default_rng(sum(request.param)), 9, request.param)


def cut(masks, rect):
    x1, y1, x2, y2 = rect
    kept = np.zeros_like(masks)
    kept[:, y1:y2, x1:x2] = masks[:, y1:y2, x1:x2]
    return kept


def cells_at_least_half(mask, cells=7):
    """The definition, with every pixel of the box made of `cells` x `cells` small ones."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return np.zeros((cells, cells), dtype=bool)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.int64)
    fine = np.kron(box, np.ones((cells, cells), dtype=np.int64))
    counts = fine.reshape(cells, box.shape[0], cells, box.shape[1]).sum((1, 3))
    return 2 * counts >= box.size


def test_from_masks(masks):
    patches = PatchSet.from_masks(masks, np.linspace(0, 1, len(masks)))
    assert len(patches) == len(masks) and patches.size == masks.shape[1:]
    np.testing.assert_array_equal(patches.decode(), masks)
    np.testing.assert_array_equal(coco_mask.decode(patches.coco()).transpose(2, 0, 1), masks)
    np.testing.assert_array_equal(patches.areas, masks.sum((1, 2)))
    np.testing.assert_array_equal(patches.boxes, rle.parse(patches.rles, patches.size).boxes())
    np.testing.assert_array_equal(patches.regions, [cells_at_least_half(m) for m in masks])
    assert patches.scores.dtype == np.float32 and patches.scores[-1] == 1
    kinds = [getattr(patches, n).dtype for n in ('boxes', 'areas', 'regions')]
    assert kinds == [np.float32, np.int64, bool]


def test_masks_of_any_kind_count_by_their_truth():
    values = np.array([[[0, 2, 256], [0, 0, 1]]])
    expected = PatchSet.from_masks(values != 0).rles
    assert PatchSet.from_masks(values).rles == expected
    assert PatchSet.from_masks(torch.tensor(values, dtype=torch.float32)).rles == expected
    with pytest.raises(ValueError, match=r'\(N, H, W\)'):
        PatchSet.from_masks(values[0])


def test_from_rles(masks):
    expected = PatchSet.from_masks(masks)
    as_text = [{**each, 'counts': each['counts'].decode()} for each in expected.coco()]
    for given in (expected.rles, expected.coco(), as_text):
        found = PatchSet.from_rles(given, expected.size)
        assert found.rles == expected.rles
        for name in ('boxes', 'scores', 'areas', 'regions'):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_from_rles_refuses():
    patches = PatchSet.from_masks(np.ones((2, 4, 6), dtype=bool))
    with pytest.raises(UserError, match='patch 0 is of an image of 4x6 .* expected 6x4'):
        PatchSet.from_rles(patches.coco(), (6, 4))
    with pytest.raises(UserError, match='patch 0 .* of 24 pixels and the image has 4x5'):
        PatchSet.from_rles(patches.rles, (4, 5))
    with pytest.raises(UserError, match='patch 0 is a list'):
        PatchSet.from_rles([[0, 24]], (4, 6))
    with pytest.raises(ValueError, match='2 patches have scores of shape'):
        PatchSet.from_rles(patches.rles, (4, 6), [1.0])


def test_no_patches():
    for patches in (PatchSet.from_masks(np.zeros((0, 5, 7))), PatchSet.from_rles([], (5, 7))):
        assert len(patches) == 0 and patches.decode().shape == (0, 5, 7) and patches.coco() == []
        assert patches.boxes.shape == (0, 4) and patches.regions.shape == (0, 7, 7)
        assert iop(patches, encode(np.ones((2, 5, 7)))).shape == (2, 0)
        assert box_iop(patches.boxes, np.zeros((2, 4), np.float32)).shape == (2, 0)
        assert len(cropped(patches, (1, 1, 3, 3)).index) == 0
        assert len(patches.select([])) == 0 and len(PatchSet.concat([patches, patches])) == 0


def test_select_and_concat(masks):
    patches = PatchSet.from_masks(masks, np.arange(len(masks)))
    for index in ([5, 0, 5], np.arange(9) % 2 == 1, np.array([], dtype=int)):
        found, rows = patches.select(index), np.arange(9)[np.asarray(index)] if len(index) else []
        np.testing.assert_array_equal(found.scores, rows)
        np.testing.assert_array_equal(found.decode(), masks[rows] if len(rows) else masks[:0])
    both = PatchSet.concat([patches.select([2, 3]), patches.select([1])])
    np.testing.assert_array_equal(both.decode(), masks[[2, 3, 1]])
    with pytest.raises(UserError, match='are of one image'):
        PatchSet.concat([patches, PatchSet.from_rles([], (99, 99))])


def test_a_patch_set_travels_without_its_runs(masks):
    patches = PatchSet.from_masks(masks)
    before = len(pickle.dumps(patches))
    assert patches.runs is patches.runs
    assert len(pickle.dumps(patches)) == before
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(patches)).decode(), masks)


def disk(size, centre, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) < radius


def test_regions_are_those_of_roi_align():
    """RoIAlign takes the mean of some bilinear samples for the share of a cell."""
    masks = np.stack(
        [
            disk((200, 300), (90, 140), 80),
            disk((200, 300), (20, 290), 120),
            disk((200, 300), (100, 100), 90) & ~disk((200, 300), (90, 120), 60),
        ]
    )
    patches = PatchSet.from_masks(masks)
    boxes = [b[None] for b in torch.from_numpy(patches.boxes)]
    maps = torch.from_numpy(masks[:, None].astype(np.float32))
    shares = roi_align(maps, boxes, output_size=7, aligned=True)[:, 0].numpy()  # (3, 7, 7)
    clear = np.abs(shares - 0.5) > 0.02
    assert clear.mean() > 0.9
    np.testing.assert_array_equal((shares >= 0.5)[clear], patches.regions[clear])


def test_half_a_cell_is_enough():
    mask = np.zeros((1, 14, 14), dtype=bool)
    mask[0, ::2] = True  # of the box of 13 rows, the first cell's half is 13 / 14 of a row
    mask[0, 13] = True  # now the box has 14 rows, and each cell is half full
    assert PatchSet.from_masks(mask).regions.all()
    mask[0, 0, 0] = False
    assert PatchSet.from_masks(mask).regions.sum() == 48


@pytest.mark.parametrize('whole', [True, False])
def test_iop(masks, whole):
    rng = np.random.default_rng(0)
    height, width = masks.shape[1:]
    units = random_masks(rng, 5, (height, width))
    rect = (width // 3, height // 4, width, max(height - 2, 1))
    inside, seen = (masks, units) if whole else (cut(masks, rect), cut(units, rect))
    areas = inside.sum((1, 2))
    expected = (seen[:, None] & inside).sum((2, 3)) / np.maximum(areas, 1)
    found = iop(PatchSet.from_masks(masks), encode(units), None if whole else rect)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_iop_is_that_of_pycocotools(masks):
    patches = PatchSet.from_masks(masks)
    expected = coco_mask.iou(patches.coco(), patches.coco(), [1] * len(patches)).T
    np.testing.assert_allclose(iop(patches, patches.rles), expected, rtol=1e-6)


def test_cropped_is_what_the_cut_masks_give(masks):
    height, width = masks.shape[1:]
    patches = PatchSet.from_masks(masks)
    rects = [(0, 0, width, height), (width // 2, 0, width, height), (0, height // 3, width, height)]
    rects += [(width // 4, height // 4, width // 4 + 1, height // 4 + 2), (1, 1, 1, 1)]
    for rect in rects:
        found, left = cropped(patches, rect), cut(masks, rect)
        index = np.flatnonzero(left.any((1, 2)))
        np.testing.assert_array_equal(found.index, index)
        expected = PatchSet.from_masks(left[index])
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.areas, expected.areas)
        np.testing.assert_array_equal(found.regions, expected.regions)


def test_a_crop_changes_nothing_of_the_patches(masks):
    patches = PatchSet.from_masks(masks)
    before = pickle.dumps(patches)
    height, width = masks.shape[1:]
    found = cropped(patches, (0, 0, max(width // 2, 1), height))
    found.boxes[:] = found.regions[:] = 0
    assert pickle.dumps(patches) == before
    assert len(cropped(patches, None).index) == masks.any((1, 2)).sum()


def test_whole_pixels():
    size = (10, 20)
    assert whole_pixels(None, size) == (0, 0, 20, 10)
    assert whole_pixels((0, 0, 20, 10), size) == (0, 0, 20, 10)
    assert whole_pixels((-3, -9, 99, 99), size) == (0, 0, 20, 10)
    # The centre of pixel 3 is at 3.5.
    assert whole_pixels((3.4, 3.5, 7.5, 7.6), size) == (3, 3, 7, 8)
    assert whole_pixels((3.6, 0, 3.9, 10), size) == (4, 0, 4, 10)
    assert whole_pixels((8, 9, 2, 3), size) == (8, 9, 8, 9)
    assert whole_pixels((50, 50, 60, 60), size) == (20, 10, 20, 10)


def test_box_overlaps():
    rng = np.random.default_rng(0)
    patches, units = (
        np.concatenate([low, low + rng.random((n, 2)) * 30], axis=1).astype(np.float32)
        for n, low in ((40, rng.random((40, 2)) * 50), (9, rng.random((9, 2)) * 50))
    )
    expected = torchvision_box_iou(torch.from_numpy(units), torch.from_numpy(patches))
    np.testing.assert_allclose(box_iou(patches, units), expected, atol=1e-6)
    found = box_iou(torch.from_numpy(patches), torch.from_numpy(units))
    torch.testing.assert_close(found, expected)
    share = box_iop(patches, units)
    for k, n in [(0, 0), (3, 7), (8, 39)]:
        (a, b, c, d), (x1, y1, x2, y2) = units[k], patches[n]
        shared = max(min(c, x2) - max(a, x1), 0) * max(min(d, y2) - max(b, y1), 0)
        assert share[k, n] == pytest.approx(shared / ((x2 - x1) * (y2 - y1)), rel=1e-4)
    torch.testing.assert_close(
        box_iop(torch.from_numpy(patches), torch.from_numpy(units)), torch.from_numpy(share)
    )


def test_boxes_without_area_overlap_nothing():
    boxes = np.array([[0, 0, 0, 0], [2, 2, 2, 9], [0, 0, 4, 4]], dtype=np.float32)
    assert box_iop(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert box_iou(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_overlaps_cost_less_than_to_decode():
    rng = np.random.default_rng(0)
    masks = [
        disk((240, 320), rng.random(2) * (240, 320), 3 + 60 * rng.random() ** 3) for _ in range(150)
    ]
    stored, units = PatchSet.from_masks(np.stack(masks)), encode(masks[:10])
    rect, seconds = (30, 20, 250, 200), {'runs': [], 'decode': []}
    for _ in range(3):
        patches = PatchSet.from_rles(stored.rles, stored.size)
        begin = time.process_time()
        iop(patches, units, rect), cropped(patches, rect)
        middle = time.process_time()
        patches.decode()
        seconds['runs'].append(middle - begin)
        seconds['decode'].append(time.process_time() - middle)
    assert min(seconds['runs']) < min(seconds['decode'])
