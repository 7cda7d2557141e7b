"""Reading of YOLO segment labels: pixels by hand, and what is wrong with a line."""

import pytest
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_classes import COCO_THING_IDS, COCO_THINGS
from mmprompt.datasets.yolo import image_size, list_images, read_yolo


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images/sub').mkdir(parents=True)
    (tmp_path / 'labels/sub').mkdir(parents=True)
    Image.new('RGB', (40, 20)).save(tmp_path / 'images/sub/a.jpg')
    Image.new('RGB', (8, 8)).save(tmp_path / 'images/b.PNG')
    (tmp_path / 'images/notes.txt').write_text('no image')
    return tmp_path


def read(folder, text: str, classes: int = 3):
    (folder / 'labels/sub/a.txt').write_text(text)
    return read_yolo(folder / 'images', folder / 'labels', 'sub/a.jpg', classes)


def test_polygons_are_in_pixels_and_repetitions_fall_out(folder):
    found = read(folder, '2 0 0 0.5 0 0.5 1\n\n1 0.25 0.5 1.0005 0.5 1 1 0 1\n2 0 0 0.5  0 0.5 1\n')
    assert found.size == (20, 40) and found.classes.tolist() == [2, 1] and found.repeated == 1
    assert found.polygons[0].tolist() == [[0, 0], [20, 0], [20, 20]]
    assert found.polygons[1].tolist() == [[10, 10], [40, 10], [40, 20], [0, 20]]


def test_no_file_and_an_empty_one_mean_no_label(folder):
    assert list_images(folder / 'images') == ['b.PNG', 'sub/a.jpg']
    for found in (read(folder, ' \n'), read_yolo(folder / 'images', folder, 'b.PNG', 3)):
        assert found.polygons == [] and found.classes.shape == (0,)


def test_a_turned_photo_has_the_sides_it_is_loaded_with(folder):
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (40, 20)).save(folder / 'images/sub/a.jpg', exif=exif)
    assert image_size(folder / 'images/sub/a.jpg') == (40, 20)


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('3 0 0 1 0 1 1', 'class from 0 to 2, found 3'),
        ('0.5 0 0 1 0 1 1', 'class from 0 to 2, found 0.5'),
        ('1 0.5 0.5 0.1 0.1', 'four numbers of a box'),
        ('1 0 0 1 0 1', 'found 5 numbers'),
        ('1 0 0 1 0', 'four numbers'),
        ('1 0 0 300 0 1 1', 'found 300'),
        ('1 0 0 nan 0 1 1', 'found nan'),
        ('1 0 0 x 0 1 1', 'expected numbers'),
    ],
)
def test_a_wrong_line_is_named(folder, line, said):
    with pytest.raises(UserError, match=r'sub/a\.txt:2: .*' + said):
        read(folder, '0 0 0 1 0 1 1\n' + line)


def test_a_folder_without_images_and_a_broken_image_are_named(folder):
    with pytest.raises(UserError, match='labels: expected a folder with images .* no images'):
        list_images(folder / 'labels')
    with pytest.raises(UserError, match='no such folder'):
        list_images(folder / 'none')
    (folder / 'images/sub/a.jpg').write_text('no')
    with pytest.raises(UserError, match=r'a\.jpg: expected an image'):
        read(folder, '')


def test_the_classes_of_coco_are_those_of_mmdetection():
    meta = pytest.importorskip('mmdet.datasets').CocoDataset.METAINFO['classes']
    assert COCO_THINGS == tuple(meta)
    assert len(COCO_THING_IDS) == 80 and dict(zip(COCO_THINGS, COCO_THING_IDS))['book'] == 84
