"""Panoptic targets: from files to samples, through the geometric transforms of MMSegmentation."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.transforms import describe_segments, panoptic_ids
from mmprompt.registry import TRANSFORMS

THINGS = (11, 13)


@pytest.fixture
def files(tmp_path):
    """Road above, wall below, two cars, a group of persons, void in the last row."""
    labels = np.zeros((32, 48), np.uint8)
    labels[16:] = 3
    ids = np.where(labels == 0, 7, 12).astype(np.uint16)
    labels[4:10, 4:12], ids[4:10, 4:12] = 13, 26000
    labels[4:10, 20:30], ids[4:10, 20:30] = 13, 26001
    labels[20:28, 30:40], ids[20:28, 30:40] = 11, 24
    labels[31], ids[31] = 255, 1
    Image.fromarray(labels).save(tmp_path / 'a_gtFine_labelTrainIds.png')
    Image.fromarray(ids).save(tmp_path / 'a_gtFine_instanceIds.png')
    Image.fromarray(np.stack([labels] * 3, -1)).save(tmp_path / 'a_leftImg8bit.png')
    return tmp_path


def _run(files, *transforms):
    init_default_scope('mmprompt')
    results = dict(
        img_path=str(files / 'a_leftImg8bit.png'),
        seg_map_path=str(files / 'a_gtFine_labelTrainIds.png'),
        seg_fields=[],
        reduce_zero_label=False,
        label_map=None,
    )
    for config in (
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='LoadCityscapesPanoptic', thing_classes=THINGS),
        *transforms,
        dict(type='PackPanopticInputs', thing_classes=THINGS),
    ):
        results = TRANSFORMS.build(config)(results)
    return results


def test_segments_of_a_file(files):
    sample = _run(files)['data_samples']
    segments = sample.gt_segments
    assert segments.ids.tolist() == [1000, 4000, 12000, 14001, 14002]
    assert segments.labels.tolist() == [0, 3, 11, 13, 13]
    assert segments.is_thing.tolist() == [False, False, True, True, True]
    assert segments.is_crowd.tolist() == [False, False, True, False, False]
    assert segments.areas.tolist() == [16 * 48 - 48 - 60, 15 * 48 - 80, 80, 48, 60]
    assert (sample.gt_panoptic_seg.data[0, 31] == 0).all()


@pytest.mark.parametrize('seed', range(4))
def test_geometric_transforms_move_both_maps(files, seed):
    np.random.seed(seed)
    packed = _run(
        files,
        dict(type='RandomResize', scale=(48, 32), ratio_range=(0.8, 2.0), keep_ratio=True,
             resize_type='mmseg.Resize'),
        dict(type='mmseg.RandomCrop', crop_size=(20, 24)),
        dict(type='mmseg.RandomFlip', prob=1.0),
    )  # fmt: skip
    sample = packed['data_samples']
    ids, labels = sample.gt_panoptic_seg.data, sample.gt_sem_seg.data
    assert ids.shape == labels.shape == (1, 20, 24)
    rebuilt = torch.full_like(labels, 255)
    for i, label in zip(sample.gt_segments.ids, sample.gt_segments.labels):
        rebuilt[ids == i] = label
    assert torch.equal(rebuilt, labels)
    # the image shows the labels, so it proves that the maps moved with it
    inner = (labels == packed['inputs'][:1].long()) | (labels == 255)
    assert inner.float().mean() > 0.75


def test_padding_is_void(files):
    sample = _run(files, dict(type='mmseg.RandomCrop', crop_size=(32, 48)))['data_samples']
    padded = np.pad(sample.gt_panoptic_seg.data[0].numpy(), ((0, 4), (0, 0)), constant_values=255)
    assert describe_segments(padded, THINGS).ids.tolist() == sample.gt_segments.ids.tolist()


def test_min_area_drops_specks():
    found = describe_segments(np.array([[1000, 1000, 1000, 14001]]), THINGS, min_area=2)
    assert found.ids.tolist() == [1000]


def test_transforms_that_move_one_map_alone_are_refused(files):
    for transform in (
        dict(type='mmcv.RandomFlip', prob=1.0),
        dict(type='mmcv.Resize', scale=(24, 16)),
    ):
        from mmcv import transforms

        name = transform['type'].split('.')[1]
        moved = getattr(transforms, name)(**{k: v for k, v in transform.items() if k != 'type'})
        pack = TRANSFORMS.build(dict(type='PackPanopticInputs', thing_classes=THINGS))
        labels = np.arange(24).reshape(4, 6).astype(np.uint8) % 5
        results = dict(
            img=np.zeros((4, 6, 3), np.uint8),
            gt_seg_map=labels,
            gt_panoptic_map=panoptic_ids(labels, labels, THINGS),
            seg_fields=['gt_seg_map', 'gt_panoptic_map'],
        )
        with pytest.raises(UserError, match='mmseg.RandomFlip'):
            pack(moved(results))


def test_bad_files_are_named(files):
    path = files / 'a_gtFine_instanceIds.png'
    good = path.read_bytes()
    for content, found in ((None, 'missing'), (good[:60], 'readable PNG')):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        else:
            with pytest.raises(UserError, match=found):
                _run(files)
            path.write_bytes(good)
            continue
        with pytest.raises(UserError, match=found) as error:
            _run(files)
        assert str(path) in str(error.value)
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(path)
    with pytest.raises(UserError, match=r'\(3, 3\)'):
        _run(files)
