"""Felzenszwalb's segments as patches."""

import sys

import numpy as np
import pytest

from mmprompt.common.errors import UserError
from mmprompt.common.patches import encode
from mmprompt.foundation.patch_generators import FelzenszwalbPatches
from mmprompt.foundation.patch_generators.felzenszwalb import segments


def blocks(times=1):
    """Four squares of one colour each, with a small one in the middle of the first."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    image[4:10, 8:16] = 250
    return image.repeat(times, 0).repeat(times, 1)


def test_segments_are_those_of_the_label_map():
    labels = np.random.default_rng(0).integers(0, 4, (9, 13)) * 3
    masks = [labels == i for i in np.unique(labels)]
    assert segments(labels) == encode(np.stack(masks))
    areas = np.array([mask.sum() for mask in masks])
    limit = areas.max() - 1
    kept = [mask for mask in masks if mask.sum() <= limit]
    assert segments(labels, limit / labels.size) == encode(np.stack(kept))


@pytest.mark.parametrize('times', [1, 3])
def test_each_region_is_one_patch(times):
    pytest.importorskip('skimage')
    generator = FelzenszwalbPatches(scales=(100, 300), sigma=0, min_size=4, reference=32 * 64)
    found = generator(blocks(times))
    # Both scales see the same five regions.
    assert sorted(found.areas // times**2) == [48, 464, 512, 512, 512]
    assert found.decode().sum(0).max() == 1 and (found.scores == 1).all()


def test_scales_add_what_is_new():
    pytest.importorskip('skimage')
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    image[:20] //= 3
    sizes = dict(sigma=0.5, min_size=3, reference=40 * 60)
    fine, coarse, both = (
        FelzenszwalbPatches(scales=s, **sizes)(image) for s in ((50,), (2000,), (50, 2000))
    )
    assert both.rles[: len(fine)] == fine.rles
    assert set(both.rles[len(fine) :]) <= set(coarse.rles)
    assert len(fine) < len(both) <= len(fine) + len(coarse)


def test_wrong_arguments_and_no_library(monkeypatch):
    for wrong in (dict(scales=()), dict(scales=(-1,)), dict(min_size=0), dict(sigma=-1)):
        with pytest.raises(UserError, match=next(iter(wrong))):
            FelzenszwalbPatches(**wrong)
    monkeypatch.setitem(sys.modules, 'skimage.segmentation', None)
    with pytest.raises(UserError, match='pip install scikit-image'):
        FelzenszwalbPatches()(blocks())
