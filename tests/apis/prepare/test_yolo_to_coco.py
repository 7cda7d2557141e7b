"""tools/yolo_to_coco.py: masks by Pillow and by hand, the split, files and refusals."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from mmprompt.apis.prepare.yolo_to_coco import draw, main
from mmprompt.datasets.coco_classes import COCO_THING_IDS


def polygon(center, radii, number: int, sides: int = 24) -> list[float]:
    angles = np.arange(sides) * 2 * np.pi / sides + 0.1 * number
    points = np.asarray(center) + np.stack([np.cos(angles), np.sin(angles)], -1) * radii
    return points.ravel().tolist()


@pytest.fixture
def data(tmp_path):
    """Five images, the last two without labels; two objects each."""
    for i, (width, height) in enumerate([(96, 64), (50, 81), (64, 64), (30, 30), (30, 30)]):
        name = f'{i:012d}'
        for folder in ('images', 'labels'):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new('RGB', (width, height)).save(tmp_path / f'images/{name}.jpg')
        rows = [(79, polygon((0.4, 0.5), (0.31, 0.37), i)), (i, polygon((0.7, 0.6), 0.25, i, 5))]
        text = ''.join(f'{c} ' + ' '.join(f'{v:.6g}' for v in p) + '\n' for c, p in rows)
        if i < 3:
            (tmp_path / f'labels/{name}.txt').write_text(text)
    (tmp_path / f'labels/{3:012d}.txt').write_text('')
    return tmp_path


def run(data, *more) -> int:
    folders = ['--images', data / 'images', '--labels', data / 'labels', '--out', data / 'out']
    return main([str(a) for a in (*folders, *more)])


def test_masks_areas_and_boxes_are_those_of_the_polygons(data, capsys):
    assert run(data) == 0
    said = capsys.readouterr().out
    assert '3 images, 6 objects of 4 of 80 classes' in said
    assert f'left out (2): {3:012d}.jpg, {4:012d}.jpg' in said
    coco = COCO(str(data / 'out/annotations/instances.json'))
    assert coco.getCatIds() == list(COCO_THING_IDS) and len(coco.anns) == 6
    assert sorted(coco.imgs) == [0, 1, 2]
    for i in range(3):
        image = coco.imgs[i]
        width, height = Image.open(data / 'images' / image['file_name']).size
        assert (image['width'], image['height']) == (width, height)
        rows = coco.loadAnns(coco.getAnnIds(i))
        assert [r['category_id'] for r in rows] == [90, COCO_THING_IDS[i]]
        for row, line in zip(rows, (data / f'labels/{i:012d}.txt').read_text().splitlines()):
            points = np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)
            canvas = Image.new('1', (width * 8, height * 8))  # a pixel is where half of it is
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in points * 8], fill=1)
            share = np.asarray(canvas).reshape(height, 8, width, 8).mean((1, 3))
            mask = coco.annToMask(row).astype(bool)
            assert ((share >= 0.5) != mask).sum() <= 0.02 * mask.sum() + 2
            x, y = points.T
            shoelace = 0.5 * abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))
            assert row['area'] == mask.sum() == pytest.approx(shoelace, rel=0.03, abs=4)
            low, size = points.min(0), np.ptp(points, axis=0)
            assert row['bbox'] == pytest.approx([*low, *size], abs=0.011) and row['iscrowd'] == 0


def test_a_split_is_the_same_whatever_the_order_and_loses_no_image(data, capsys):
    assert run(data, '--split', 'train=2', 'val=rest') == 0
    out = capsys.readouterr().out
    assert 'train.json: 2 images' in out and 'val.json: 1 images' in out and 'no part' not in out
    files = {p.stem: p.read_bytes() for p in (data / 'out/annotations').iterdir()}
    names = [r['file_name'] for b in files.values() for r in json.loads(b)['images']]
    assert sorted(names) == [f'{i:012d}.jpg' for i in range(3)]
    ids = [r['id'] for r in json.loads(files['train'])['annotations']]
    assert ids == [1, 2, 3, 4]
    assert run(data, '--split', 'train=2', 'val=rest') == 0
    assert files == {p.stem: p.read_bytes() for p in (data / 'out/annotations').iterdir()}
    assert run(data, '--split', 'train=1') == 0
    assert 'in no part (2)' in capsys.readouterr().out
    names = [f'{i}.png' for i in range(50)]
    first = draw(names, dict(a=20, b=None), 0)
    again = draw(names[::-1], dict(a=20, b=None), 0)
    assert set(first['a']) == set(again['a']) and len(first['b']) == 30 and not first['']
    assert first['a'] == [n for n in names if n in set(first['a'])]
    below = draw([f'train/{n}' for n in names], dict(a=20), 0)
    assert below['a'] == [f'train/{n}' for n in first['a']]
    twice = [f'{folder}/{n}' for n in names for folder in 'xy']
    assert sum(map(len, draw(twice, dict(a=50, b=50), 0).values())) == 100
    assert set(first['a']) != set(draw(names, dict(a=20, b=None), 1)['a'])


def test_own_names_empty_images_and_the_link(data):
    (data / 'names.txt').write_text('\n'.join(f'c{i}' for i in range(80)))
    yaml = ''.join(f'  {i}: c{i}\n' for i in range(80))
    (data / 'data.yaml').write_text('path: here\nnames:\n' + yaml)
    made = []
    for names in ('names.txt', 'data.yaml'):
        assert run(data, '--names', data / names, '--keep-empty', '--link') == 0
        made.append(json.loads((data / 'out/annotations/instances.json').read_text()))
    assert made[0] == made[1] and len(made[0]['images']) == 5
    assert made[0]['categories'][79] == dict(id=80, name='c79', supercategory='c79')
    assert {r['category_id'] for r in made[0]['annotations']} == {1, 2, 3, 80}
    for image in made[0]['images']:
        assert (data / 'out/images' / image['file_name']).is_file()


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--split', 'train=4'], 'at most the 3 images that have labels, found 4'),
        (['--split', 'train'], 'expected NAME=NUMBER'),
        (['--split', 'a=rest', 'b=rest'], 'at most one part'),
        (['--names', 'none.txt'], 'none.txt: expected names of classes'),
        (['--labels', 'none'], 'none: expected the folder of the labels'),
        (['--labels', '.'], 'expected labels named like the images'),
    ],
)
def test_what_cannot_be_used_is_said(data, capsys, more, said):
    assert run(data, *more) == 2
    assert said in capsys.readouterr().err and not (data / 'out').exists()


def test_a_folder_in_the_place_of_the_link_stays(data, capsys):
    (data / 'out/images').mkdir(parents=True)
    assert run(data, '--link') == 2
    assert 'expected a free place' in capsys.readouterr().err and (data / 'out/images').is_dir()
