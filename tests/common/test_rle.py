"""Run lengths, against pycocotools and painted masks."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmprompt.common import rle
from mmprompt.common.errors import UserError
from tests.patch_sets import SIZES, coded, random_masks


def painted(runs):
    height, width = runs.size
    flat = np.zeros((runs.count, width * height), dtype=bool)
    for owner, start, stop in zip(runs.owner, runs.start, runs.stop):
        assert not flat[owner, start:stop].any() and stop > start
        flat[owner, start:stop] = True
    return flat.reshape(runs.count, width, height).transpose(0, 2, 1)


@pytest.fixture(params=SIZES, ids=str)
def masks(request):
    return random_masks(np.random.default_rng(sum(request.param)), 9, request.param)


def test_runs_are_those_of_pycocotools(masks):
    runs = rle.parse(coded(masks), masks.shape[1:])
    np.testing.assert_array_equal(painted(runs), masks)
    np.testing.assert_array_equal(runs.areas(), masks.sum((1, 2)))
    assert rle.encode_runs(runs) == coded(masks)


def test_boxes_are_those_of_pycocotools(masks):
    found = rle.parse(coded(masks), masks.shape[1:]).boxes()
    entries = [{'size': masks.shape[1:], 'counts': each} for each in coded(masks)]
    expected = coco_mask.toBbox(entries)
    expected[:, 2:] += expected[:, :2]
    some = masks.any((1, 2))
    np.testing.assert_array_equal(found[some], expected[some])
    assert not found[~some].any() and (~some).any()


def test_long_numbers():
    size = (3000, 2000)
    mask = np.zeros(size, dtype=bool)
    mask[1, 0] = mask[:, 900:1900] = mask[7, 1990:] = True
    runs = rle.parse(coded([mask]), size)
    np.testing.assert_array_equal(painted(runs)[0], mask)
    assert rle.encode_runs(runs) == coded([mask])


def test_select_and_cut(masks):
    runs = rle.parse(coded(masks), masks.shape[1:])
    order = np.array([4, 1, 4, 0, 8])
    np.testing.assert_array_equal(painted(runs.select(order)), masks[order])
    assert runs.select(order[:0]).count == 0
    height, width = masks.shape[1:]
    for rect in [
        (0, 0, width, height),
        (width // 3, 0, width, height),
        (0, height // 2, 1, height),
    ]:
        x1, y1, x2, y2 = rect
        expected = np.zeros_like(masks)
        expected[:, y1:y2, x1:x2] = masks[:, y1:y2, x1:x2]
        assert rle.encode_runs(rle.cut(runs, rect)) == coded(expected)


def test_no_masks_and_no_pixels_left():
    none = rle.parse([], (4, 6))
    assert none.count == 0 and none.boxes().shape == (0, 4) and not len(none.areas())
    assert rle.encode_runs(none) == []
    runs = rle.parse(coded(np.ones((2, 4, 6), dtype=bool)), (4, 6))
    empty = rle.cut(runs, (2, 2, 2, 4))
    assert rle.encode_runs(empty) == coded(np.zeros((2, 4, 6), dtype=bool))
    assert not empty.boxes().any() and not empty.areas().any()


def test_runs_that_touch_are_written_as_one():
    # 3 of background, 2, none, 4, 15: nobody writes so, but it is legal.
    divided = coco_mask.frPyObjects({'size': [4, 6], 'counts': [3, 2, 0, 4, 15]}, 4, 6)['counts']
    joined = coco_mask.frPyObjects({'size': [4, 6], 'counts': [3, 6, 15]}, 4, 6)['counts']
    assert rle.encode_runs(rle.parse([divided, joined], (4, 6))) == [joined, joined]
    nothing = coco_mask.frPyObjects({'size': [4, 6], 'counts': [3, 0, 21]}, 4, 6)['counts']
    assert rle.parse([nothing], (4, 6)).areas() == [0]


@pytest.mark.parametrize(
    ('counts', 'reason'),
    [
        (b'', 'it is empty'),
        (b'\x7f23', 'character'),
        (b'6 2', 'character'),
        (b'6\xb02', 'character'),
        (b'22Q', 'breaks off'),
        (b'o' * 20 + b'0', 'endless'),
        (b'N;', 'negative'),
        (b'9N?', 'negative'),
        (b'933L', 'negative'),
        (b'88', 'of 16 pixels and the image has 4x6'),
        (b'9999', 'pixels and the image has 4x6'),
    ],
)
def test_what_is_no_code_is_refused(counts, reason):
    good = coded(np.zeros((1, 4, 6), dtype=bool))
    with pytest.raises(UserError, match=f'annotation 1 .*{reason}'):
        rle.parse([*good, counts, *good], (4, 6), 'annotation')


def test_no_random_bytes_crash():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        text = rng.integers(0, 256, rng.integers(1, 12), dtype=np.uint8)
        text = text if rng.random() < 0.3 else 48 + text % 64
        try:
            runs = rle.parse([text.tobytes()], (4, 6))
        except UserError:
            refused += 1
        else:
            assert 0 <= runs.areas()[0] <= 24
    assert refused > 200


def test_shared_pixels(masks):
    units = random_masks(np.random.default_rng(7), 5, masks.shape[1:])
    found = rle.shared_pixels(*(rle.parse(coded(m), masks.shape[1:]) for m in (units, masks)))
    np.testing.assert_array_equal(found, (units[:, None] & masks).sum((2, 3)))
    none = rle.parse([], masks.shape[1:])
    assert rle.shared_pixels(none, rle.parse(coded(masks), masks.shape[1:])).shape == (0, 9)
    assert rle.shared_pixels(rle.parse(coded(units), masks.shape[1:]), none).shape == (5, 0)


def test_atoms_are_the_partition(masks):
    atoms = rle.Atoms.from_rles(coded(masks), masks.shape[1:])
    assert atoms.index.dtype == np.int32 and atoms.cover.dtype == bool
    np.testing.assert_array_equal(atoms.cover[:, atoms.index], masks)
    np.testing.assert_array_equal(
        np.bincount(atoms.index.ravel(), minlength=len(atoms.areas)), atoms.areas
    )
    patterns = np.unique(masks.reshape(len(masks), -1), axis=1)
    assert len(atoms.areas) == patterns.shape[1]  # no two atoms are the same, none is empty


def test_unions_of_atoms(masks):
    atoms = rle.Atoms.from_rles(coded(masks), masks.shape[1:])
    members = np.random.default_rng(3).random((6, len(masks))) < 0.3
    members[0] = False
    expected = np.stack([masks[row].any(0) for row in members])
    sets = atoms.union(members)
    np.testing.assert_array_equal(atoms.masks(sets), expected)
    np.testing.assert_array_equal(sets @ atoms.areas, expected.sum((1, 2)))


def test_atoms_of_nothing():
    atoms = rle.Atoms.from_rles([], (3, 4))
    assert atoms.areas.tolist() == [12] and atoms.cover.shape == (0, 1)
    assert not atoms.index.any() and atoms.index.shape == (3, 4)
    assert not atoms.union(np.zeros((2, 0), dtype=bool)).any()


def test_a_map_is_one_mask_for_each_of_its_values():
    labels = np.random.default_rng(0).integers(-2, 3, (7, 9))
    runs, values = rle.runs_of_map(labels)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    for code, value in zip(rle.encode_runs(runs), values):
        mask = coco_mask.decode(dict(size=[7, 9], counts=code))
        assert np.array_equal(mask, labels == value)
