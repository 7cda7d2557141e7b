"""Batches taken apart by size."""

import pytest
import torch
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch

from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import image_groups, padded, places, step_by_size

SIZES = [(31, 33), (32, 40), (1, 70), (33, 33), (20, 64), (64, 1)]


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in SIZES]


def test_each_image_gets_its_own_zeros():
    found = images()
    batch, samples = stack_batch(
        found, [SegDataSample() for _ in found], size_divisor=32, pad_val=7
    )
    groups = image_groups(batch, [sample.metainfo for sample in samples])
    assert [group.indices for group in groups] == [[0, 1, 4], [2], [3], [5]]
    for group in groups:
        for image, index, size in zip(group.images, group.indices, group.sizes):
            assert size == SIZES[index]
            assert torch.equal(image, padded(found[index]))
            assert torch.equal(image[:, : size[0], : size[1]], found[index])
            assert image.abs().sum() == pytest.approx(float(found[index].abs().sum()), rel=1e-5)


def test_equal_images_stay_one_batch():
    batch = torch.randn(3, 3, 32, 64)
    (group,) = image_groups(batch, [dict(img_shape=(32, 64))] * 3)
    assert group.images.data_ptr() == batch.data_ptr() and group.indices == [0, 1, 2]


def test_an_image_larger_than_the_batch_is_named():
    with pytest.raises(UserError, match=r'a.png: img_shape says \(33, 64\).*\(32, 64\)'):
        image_groups(torch.zeros(1, 3, 32, 64), [dict(img_shape=(33, 64), img_path='a.png')])


def test_places_keep_their_order():
    assert places('abcab') == [[0, 3], [1, 4], [2]]


def test_steps_see_one_size_at_a_time():
    seen = []

    def step(data):
        seen.append([tuple(image.shape[1:]) for image in data['inputs']])
        return [sample * 10 for sample in data['data_samples']]

    sizes = [(4, 4), (4, 5), (4, 4)]
    data = dict(inputs=[torch.zeros(3, *size) for size in sizes], data_samples=[1, 2, 3])
    assert step_by_size(step, data) == [10, 20, 30]
    assert seen == [[(4, 4), (4, 4)], [(4, 5)]]
