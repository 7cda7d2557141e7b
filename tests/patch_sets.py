"""Masks of every kind, and stores of patches, for tests."""

import numpy as np
from pycocotools import mask as coco_mask

from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet

SIZES = [(1, 1), (1, 9), (9, 1), (5, 5), (13, 37), (31, 12)]
META = dict(generator='toy', settings=dict(points=48, sizes=(1, 2)), dataset='none')
FIELDS = ('boxes', 'scores', 'areas', 'regions')


def random_masks(rng, count, size):
    """(N, H, W) bool: noise of any density, rectangles, nothing and everything."""
    height, width = size
    masks = rng.random((count, *size)) < rng.random((count, 1, 1)) * 1.2 - 0.1
    for mask in masks[::2]:
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[:] = False
        mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = True
    if count > 3:
        masks[1], masks[3] = False, True
    return masks


def coded(masks):
    """Compressed counts by pycocotools."""
    return [coco_mask.encode(np.asfortranarray(m, dtype=np.uint8))['counts'] for m in masks]


def patches_of(seed, count=4, size=(20, 30)):
    """Patches that a seed decides."""
    rng = np.random.default_rng(seed)
    return PatchSet.from_masks(rng.random((count, *size)) < 0.4, rng.random(count))


def assert_same(found, expected):
    assert found.size == expected.size and found.rles == expected.rles
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def write(path, keys, meta=META, finish=True):
    """A store of `patches_of(key_seed(key))` for each key; its path."""
    with PatchStoreWriter(path, meta) as writer:
        for key in keys:
            writer.add(key, patches_of(key_seed(key)))
        return writer.finish() if finish else writer.part


def key_seed(key):
    return sum(key.encode())
