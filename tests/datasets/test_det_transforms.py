"""MMDetection's transforms are the oracle: the same images, label maps, sizes and matrices."""

import numpy as np
import pytest
from mmcv.transforms import Compose

from mmprompt.datasets.det_transforms import (
    DetRandomChoiceResize,
    DetRandomCrop,
    DetRandomFlip,
    DetResize,
    DetResizeShortestEdge,
)
from mmprompt.registry import TRANSFORMS

SHAPE = (37, 53)
DIRECTIONS = ('horizontal', 'vertical', 'diagonal')


def sample(panoptic: bool = True) -> dict:
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, SHAPE).astype(np.uint8)
    results = dict(
        img=random.integers(0, 256, (*SHAPE, 3)).astype(np.uint8),
        img_shape=SHAPE,
        ori_shape=SHAPE,
        gt_seg_map=labels,
        seg_fields=['gt_seg_map'],
    )
    if panoptic:
        results['gt_panoptic_map'] = (labels.astype(np.int32) + 1) * 1000
        results['seg_fields'].append('gt_panoptic_map')
    return results


def both(name: str, **arguments) -> tuple:
    """Ours and MMDetection's of one name."""
    transforms = pytest.importorskip('mmdet.datasets.transforms')
    return TRANSFORMS.build(dict(type=f'Det{name}', **arguments)), getattr(transforms, name)(
        **arguments
    )


CASES = [
    ('Resize', dict(scale=(90, 70), keep_ratio=True)),
    ('Resize', dict(scale=(90, 70), keep_ratio=False)),
    ('Resize', dict(scale_factor=0.6, keep_ratio=True)),
    *(('RandomFlip', dict(prob=1.0, direction=d)) for d in DIRECTIONS),
    ('RandomFlip', dict(prob=[0.3, 0.3, 0.3], direction=list(DIRECTIONS))),
    ('RandomCrop', dict(crop_size=(30, 20))),
    ('RandomCrop', dict(crop_size=(300, 20))),
    ('RandomCrop', dict(crop_size=(20, 30), crop_type='absolute_range')),
    ('RandomCrop', dict(crop_size=(0.5, 0.7), crop_type='relative')),
    ('RandomCrop', dict(crop_size=(0.3, 0.6), crop_type='relative_range')),
]


@pytest.mark.parametrize('name, arguments', CASES)
@pytest.mark.parametrize('seed', range(3))
def test_does_as_mmdetection(name, arguments, seed):
    ours, theirs = both(name, **arguments)
    before = both('Resize', scale=(80, 80), keep_ratio=True)
    found = []
    for steps in zip(before, (ours, theirs)):
        np.random.seed(seed)
        found.append(Compose(list(steps))(sample(panoptic=False)))
    mine, other = found
    for key in ('img', 'gt_seg_map'):
        np.testing.assert_array_equal(mine[key], other[key])
    assert mine['img_shape'] == other['img_shape'] == mine['img'].shape[:2]
    np.testing.assert_allclose(mine['homography_matrix'], other['homography_matrix'], rtol=1e-6)


@pytest.mark.parametrize('name, arguments', CASES)
def test_moves_every_map_alike(name, arguments):
    step = TRANSFORMS.build(dict(type=f'Det{name}', **arguments))
    np.random.seed(1)
    moved = step(sample())
    labels = moved['gt_seg_map'].astype(np.int32)
    np.testing.assert_array_equal(moved['gt_panoptic_map'], (labels + 1) * 1000)
    assert labels.shape == moved['img_shape']


def test_chooses_among_sizes():
    step = DetRandomChoiceResize(scales=[(30, 300), (40, 300)], keep_ratio=True)
    seen = {step(sample())['img_shape'][0] for _ in range(20)}
    assert seen == {30, 40}
    assert isinstance(step.resize, DetResize)


def test_shortest_edge():
    step = DetResizeShortestEdge(scale=74, max_size=80)
    moved = step(sample())
    assert moved['img_shape'] == (56, 80)  # 74 x 106 would be too long
    np.testing.assert_allclose(np.diag(moved['homography_matrix']), [80 / 53, 56 / 37, 1])


def test_no_flip_records_nothing():
    assert 'homography_matrix' not in DetRandomFlip(prob=0.0)(sample())


@pytest.mark.parametrize(
    'arguments',
    [
        dict(crop_size=(0.5, 0.5)),
        dict(crop_size=(9, 3), crop_type='absolute_range'),
        dict(crop_size=(9, 3), crop_type='relative'),
        dict(crop_size=(9, 9), crop_type='round'),
    ],
)
def test_refuses_crops_that_mean_nothing(arguments):
    with pytest.raises(ValueError, match='DetRandomCrop'):
        DetRandomCrop(**arguments)
