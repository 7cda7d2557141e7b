"""COD10K: classes by the names of its images."""

import json

import numpy as np
import pytest
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.cod10k import COD10K_CLASSES
from mmprompt.registry import DATASETS

#: Names of images as the data set has them, and what they show.
NAMES = {
    'COD10K-CAM-1-Aquatic-9-GhostPipefish-408.jpg': 'ghost pipefish',
    'COD10K-CAM-2-Terrestrial-42-Sciuridae-2400.jpg': 'squirrel',
    'COD10K-CAM-3-Flying-65-Owl-4570.jpg': 'owl',
    'COD10K-CAM-4-Amphibian-67-Frog-4736.jpg': 'frog',
    'COD10K-CAM-5-Other-69-Other-5060.jpg': 'other',
}
BOX = [4, 2, 10, 8]


def write(root, names=NAMES) -> dict:
    """Config of a data set in which every image has one object; all have one category."""
    (root / 'Image').mkdir()
    for name in names:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / 'Image' / name)
    x, y, w, h = BOX
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    content = dict(
        images=[dict(id=i, file_name=name, height=20, width=30) for i, name in enumerate(names, 1)],
        annotations=[
            dict(id=i, image_id=i, category_id=1, segmentation=[polygon], bbox=BOX, iscrowd=0)
            for i in range(1, len(names) + 1)
        ],
        categories=[dict(id=1, name='foreground')],
    )
    (root / 'CAM_Instance_Test.json').write_text(json.dumps(content))
    return dict(
        type='COD10KInstanceSegDataset',
        data_root=str(root),
        ann_file='CAM_Instance_Test.json',
        data_prefix=dict(img_path='Image'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotationsFromCocoInstances'),
        ],
    )


def test_the_classes_are_those_of_the_names(tmp_path):
    data = DATASETS.build(write(tmp_path))
    assert data.metainfo['classes'] == COD10K_CLASSES == data.metainfo['thing_classes']
    assert len(set(COD10K_CLASSES)) == 69
    for sample, kind in zip(data, NAMES.values()):
        assert [COD10K_CLASSES[i] for i in sample['gt_masks_coco'].labels] == [kind]
        shown = sample['gt_seg_map'] == COD10K_CLASSES.index(kind)
        assert shown.sum() == BOX[2] * BOX[3] and shown[2:10, 4:14].all()


def test_classes_can_be_chosen(tmp_path):
    data = DATASETS.build(write(tmp_path) | dict(metainfo=dict(classes=('owl', 'frog'))))
    found = [sample['gt_masks_coco'].labels.tolist() for sample in data]
    assert found == [[], [], [0], [1], []]


@pytest.mark.parametrize(
    'name', ['COD10K-NonCAM-1-Amphibian-3.jpg', 'COD10K-CAM-1-Aquatic-70-Eel-1.jpg', 'a.jpg']
)
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf'CAM_Instance_Test.json: .*{name}'):
        DATASETS.build(write(tmp_path, [name]))
