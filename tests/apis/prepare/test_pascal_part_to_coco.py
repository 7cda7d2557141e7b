"""tools/pascal_part_to_coco.py: annotations, files, refusals, and the data set that reads them."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from toy_pascal_part import SIZE, box, write_mat

from mmprompt.apis.prepare.pascal_part_to_coco import main
from mmprompt.datasets.pascal_part import PASCAL_PARTS, PASCAL_WHOLES
from mmprompt.registry import DATASETS

DOG, HEAD, EYE = box(0, 0, 6, 6), box(0, 0, 4, 3), box(1, 1, 2, 2)
IMAGES = {
    '2008_000002': [
        ('dog', DOG, [('head', HEAD), ('leye', EYE), ('reye', box(0, 0, 0, 0))]),
        ('boat', box(6, 0, 8, 2), []),
    ],
    '2008_000003': [('train', box(1, 1, 4, 4), [('coach_1', box(1, 1, 2, 2))])],  # no such part
    '2010_006086': [],
    '2009_000001': [('person', box(2, 2, 8, 6), [('hair', box(2, 2, 3, 3))])],
}


@pytest.fixture
def folder(tmp_path):
    for name, objects in IMAGES.items():
        write_mat(tmp_path / f'{name}.mat', objects)
    (tmp_path / 'train.txt').write_text('2008_000002\n2008_000003  1\n\n2010_006086\n')
    (tmp_path / 'val.txt').write_text('2009_000001\n')
    return tmp_path


def run(folder, *more: str) -> int:
    paths = [f'--annotations={folder}', f'--lists={folder}', f'--out={folder / "out"}']
    return main([*paths, *more])


def test_converts(folder, capsys):
    assert run(folder) == 0
    told = capsys.readouterr().out
    assert 'train.json: 1 images, 2 parts of 2 objects' in told
    assert 'left out (2): 2008_000003, 2010_006086' in told
    content = json.loads((folder / 'out/annotations/train.json').read_text())
    assert content['images'] == [
        dict(id=2008000002, file_name='2008_000002.jpg', height=SIZE[0], width=SIZE[1])
    ]
    names = {c['id']: c['name'] for c in content['categories']}
    assert list(names) == list(range(1, 114))
    assert list(names.values()) == [*PASCAL_PARTS, *PASCAL_WHOLES.values()]
    rows = content['annotations']
    kinds = [names[row['category_id']] for row in rows]
    assert kinds == ['dog', 'dog:head', 'dog:eye', 'boat']  # an eye without a pixel is left out
    assert [row.get('part_of') for row in rows] == [None, rows[0]['id'], rows[0]['id'], None]
    assert len({row['id'] for row in rows}) == 4
    for row, mask in zip(rows, (DOG, HEAD, EYE, box(6, 0, 8, 2))):
        np.testing.assert_array_equal(coco.decode(row['segmentation']), mask)
        assert row['area'] == mask.sum() and row['image_id'] == 2008000002
    assert rows[1]['bbox'] == [0, 0, 4, 3]


def test_the_data_set_chooses_parts_or_both(folder):
    run(folder, '--splits', 'train')
    (folder / 'images').mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / 'images/2008_000002.jpg')

    def classes_of(names: tuple) -> list[str]:
        data = DATASETS.build(
            dict(
                type='CocoInstanceSegDataset',
                data_root=str(folder),
                ann_file='out/annotations/train.json',
                data_prefix=dict(img_path='images'),
                metainfo=dict(classes=names),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotationsFromCocoInstances'),
                ],
            )
        )
        return [data.metainfo['classes'][i] for i in data[0]['gt_masks_coco'].labels]

    assert classes_of(PASCAL_PARTS) == ['dog:head', 'dog:eye']
    both = classes_of((*PASCAL_PARTS, *PASCAL_WHOLES.values()))
    assert both == ['dog', 'dog:head', 'dog:eye', 'boat']


def test_refusals(folder, capsys):
    def told(*more: str) -> str:
        assert run(folder, *more) == 2
        return capsys.readouterr().err

    assert 'test.txt: expected a list of images' in told('--splits', 'test')
    (folder / 'test.txt').write_text('\n')
    assert 'test.txt: expected names of images' in told('--splits', 'test')
    (folder / 'test.txt').write_text('2008_000003')
    assert 'expected images of test.txt with parts' in told('--splits', 'test')
    (folder / 'test.txt').write_text('2008_000004')
    assert '2008_000004.mat: expected' in told('--splits', 'test')
    (folder / 'test.txt').write_text('cat')
    write_mat(folder / 'cat.mat', [])
    assert 'cat: expected the name of an image of VOC 2010' in told('--splits', 'test')
