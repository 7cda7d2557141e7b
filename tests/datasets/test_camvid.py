"""CamVidDataset on a miniature in CamVid's folder layout."""

import numpy as np
import pytest
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.camvid import CamVidDataset

PIPELINE = [dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'train').mkdir()
    (tmp_path / 'trainannot').mkdir()
    for clip in ('0001TP', '0006R0'):
        for frame in range(4):
            name = f'{clip}_{frame:06d}'
            pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'train' / f'{name}.jpg')
            label = np.full((6, 8), frame, np.uint8)
            label[0] = 11
            Image.fromarray(label).save(tmp_path / 'trainannot' / f'{name}.png')
    return tmp_path


def build(root, **kwargs):
    return CamVidDataset(
        data_root=str(root),
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=PIPELINE,
        **kwargs,
    )


def test_unlabelled_pixels_are_ignored_and_classes_kept(root):
    sample = build(root)[2]
    assert (sample['gt_seg_map'][0] == 255).all()
    assert (sample['gt_seg_map'][1:] == 2).all()


def test_clips_and_frames_select_stretches_in_time(root):
    names = [d['img_path'].split('/')[-1] for d in build(root, clips=['0001TP'], frames=(1, 3))]
    assert names == ['0001TP_000001.jpg', '0001TP_000002.jpg']


def test_class_subset_keeps_the_ignored_value(root):
    dataset = build(root, metainfo=dict(classes=('road', 'sky')))
    assert dataset.get_data_info(0)['label_map'] == {
        0: 1, 1: 255, 2: 255, 3: 0, **{i: 255 for i in range(4, 12)}
    }  # fmt: skip


def test_an_unknown_clip_lists_those_found(root):
    with pytest.raises(UserError, match='0099XX.*0001TP, 0006R0'):
        build(root, clips=['0099XX'])


def test_missing_folder_and_missing_label_name_the_path(root):
    with pytest.raises(UserError, match='nowhere'):
        CamVidDataset(
            data_root=str(root), data_prefix=dict(img_path='nowhere', seg_map_path='trainannot')
        )
    (root / 'trainannot' / '0006R0_000003.png').unlink()
    with pytest.raises(UserError, match='0006R0_000003.png'):
        build(root)
