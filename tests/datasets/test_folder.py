"""A user's folder: pairs, masks of every kind, COCO annotations and parts."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmprompt.common.errors import UserError
from mmprompt.datasets import FolderDataset
from mmprompt.datasets.coco_labels import CocoLabels, decode
from mmprompt.datasets.folder import find_images
from mmprompt.datasets.masks import MaskReader, read_mask
from mmprompt.datasets.parts import (
    folder_parts,
    group_names,
    listed_parts,
    random_parts,
    stretches,
    wanted_sizes,
)

LABEL = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)
COLOURS = {0: (128, 64, 128), 1: (70, 70, 70), 2: (0, 0, 255)}
PACKED = {red << 16 | green << 8 | blue: n for n, (red, green, blue) in COLOURS.items()}
VALUES = {0: 0, 1: 1, 2: 2}


def save(array, path, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)
    return path


def painted(label=LABEL):
    rgb = np.zeros((*label.shape, 3), np.uint8)
    for number, colour in COLOURS.items():
        rgb[label == number] = colour
    return rgb


def palette_png(path, label=LABEL, colours=COLOURS):
    image = Image.fromarray(label).convert('P')
    image.putdata(label.ravel().tolist())
    table = np.zeros((256, 3), np.uint8)
    for number, colour in colours.items():
        table[number] = colour
    image.putpalette(table.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


# -------------------------------------------------------------------- dataset
def make_dataset(root, **more):
    prefix = dict(img_path='photos', seg_map_path='masks')
    meta = dict(classes=('a', 'b', 'c'))
    return FolderDataset(data_root=str(root), data_prefix=prefix, metainfo=meta, **more)


@pytest.fixture
def folder(tmp_path):
    for name in ('b/2.png', 'a.jpg', 'c.webp'):
        save(np.zeros((2, 4, 3), np.uint8), tmp_path / 'photos' / name)
        save(LABEL, (tmp_path / 'masks' / name).with_suffix('.png'))
    return tmp_path


def test_images_of_any_format_find_their_masks(folder):
    dataset = make_dataset(folder)
    pairs = [(e['img_path'], e['seg_map_path']) for e in map(dataset.get_data_info, range(3))]
    assert pairs == [
        (f'{folder}/photos/{name}', f'{folder}/masks/{mask}.png')
        for name, mask in (('a.jpg', 'a'), ('b/2.png', 'b/2'), ('c.webp', 'c'))
    ]


def test_a_list_chooses_and_orders(folder):
    (folder / 'list.txt').write_text('c.webp\na.jpg\n')
    dataset = make_dataset(folder, ann_file='list.txt')
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert paths == [f'{folder}/photos/c.webp', f'{folder}/photos/a.jpg']


def test_lost_masks_and_images_are_named(folder):
    (folder / 'masks/a.png').unlink()
    with pytest.raises(UserError, match=r'label map for each of the 3 .*photos/a\.jpg'):
        make_dataset(folder)
    (folder / 'list.txt').write_text('c.webp\nlost.jpg\n')
    with pytest.raises(UserError, match=r'list\.txt: .*found no lost\.jpg'):
        make_dataset(folder, ann_file='list.txt')


def test_two_images_of_one_name_are_refused(folder):
    save(np.zeros((2, 4, 3), np.uint8), folder / 'photos/a.png')
    with pytest.raises(UserError, match=r'a\.jpg and a\.png'):
        find_images(folder / 'photos')


# ---------------------------------------------------------------------- masks
@pytest.mark.parametrize('kind', ['grey', '16 bits', 'palette', 'grey as RGB'])
def test_numbers(tmp_path, kind):
    path = tmp_path / 'mask.png'
    if kind == 'palette':
        palette_png(path)
    elif kind == '16 bits':
        save(LABEL.astype(np.uint16), path)
    else:
        save(LABEL if kind == 'grey' else np.stack([LABEL] * 3, -1), path)
    reader = MaskReader(VALUES, {})
    assert (reader.label(path) == LABEL).all()
    assert not reader.strange.pixels


def test_numbers_beyond_8_bits(tmp_path):
    path = save(np.array([[7, 1000], [33000, 7]], np.uint16), tmp_path / 'mask.png')
    reader = MaskReader({7: 0, 33000: 1}, {}, ignored=(1000,))
    assert reader.label(path).tolist() == [[0, 255], [1, 0]]


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'palette'])
def test_colours(tmp_path, mode):
    path = tmp_path / 'mask.png'
    if mode == 'palette':  # of numbers that mean nothing
        palette_png(path, np.where(LABEL == 255, 9, LABEL + 40).astype(np.uint8),
                    {n + 40: c for n, c in COLOURS.items()})  # fmt: skip
    else:
        Image.fromarray(painted()).convert(mode).save(path)
    reader = MaskReader(VALUES, PACKED, ignored_colours=(0,))
    assert (reader.label(path) == LABEL).all()
    assert not reader.strange.pixels


def test_colours_without_a_meaning_are_refused(tmp_path):
    path = save(painted(), tmp_path / 'mask.png')
    with pytest.raises(UserError, match=r'mask\.png: .*no colours, found the colours #000000'):
        MaskReader(VALUES, {}).label(path)


def test_a_palette_that_contradicts_its_numbers_is_refused_until_told(tmp_path):
    swapped = {0: COLOURS[1], 1: COLOURS[0], 2: COLOURS[2]}
    label = np.where(LABEL == 255, 0, LABEL).astype(np.uint8)
    path = palette_png(tmp_path / 'mask.png', label, swapped)
    with pytest.raises(UserError, match='--palette values or --palette colours'):
        MaskReader(VALUES, PACKED).label(path)
    assert (MaskReader(VALUES, PACKED, palette='values').label(path) == label).all()
    by_colour = MaskReader(VALUES, PACKED, palette='colours').label(path)
    assert (by_colour == np.array([1, 0, 2])[label]).all()


def test_strange_values_are_counted_with_their_first_file(tmp_path):
    paths = [save(LABEL, tmp_path / f'{i}.png') for i in range(2)]
    reader = MaskReader({0: 0}, {})
    for path in paths:
        reader.label(path)
    assert str(reader.strange) == (
        f'2 (6 pixels, first in {paths[0]}), 1 (4 pixels, first in {paths[0]})'
    )
    rest = MaskReader({0: 0}, {}, rest=1)
    expected = np.where(LABEL == 0, 0, np.where(LABEL == 255, 255, 1))
    assert (rest.label(paths[0]) == expected).all()
    assert not rest.strange.pixels


def test_lossy_damaged_and_transparent_masks_are_refused(tmp_path):
    jpeg = save(painted(), tmp_path / 'mask.jpg')
    with pytest.raises(UserError, match='found JPEG'):
        read_mask(jpeg)
    renamed = tmp_path / 'renamed.png'
    renamed.write_bytes(jpeg.read_bytes())
    with pytest.raises(UserError, match='found JPEG'):
        read_mask(renamed)
    whole = save(np.random.default_rng(0).integers(0, 3, (99, 99), np.uint8), tmp_path / 'w.png')
    (tmp_path / 'cut.png').write_bytes(whole.read_bytes()[:200])
    with pytest.raises(UserError, match=r'cut\.png: .*damaged'):
        read_mask(tmp_path / 'cut.png')
    clear = save(np.dstack([painted(), np.full(LABEL.shape, 9, np.uint8)]), tmp_path / 'c.png')
    with pytest.raises(UserError, match='8 transparent pixels'):
        read_mask(clear)


# ----------------------------------------------------------------------- COCO
CATEGORIES = [dict(id=3, name='hull', isthing=1), dict(id=9, name='water', isthing=0)]
SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]
CLASSES = (('water',), ('ship', 'hull'))


def coco_json(path, annotations, categories=CATEGORIES):
    images = [dict(id=1, file_name='sub/1.jpg', height=10, width=12)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path


def test_instances_are_drawn_smaller_over_larger(tmp_path):
    inner = np.zeros((10, 12), np.uint8, order='F')
    inner[4:6, 4:6] = 1
    run = coco_mask.encode(inner)
    run['counts'] = run['counts'].decode()
    path = coco_json(
        tmp_path / 'i.json',
        [
            dict(image_id=1, category_id=9, segmentation=run),
            dict(image_id=1, category_id=3, segmentation=[SQUARE]),
        ],
    )
    labels = CocoLabels(path, CLASSES, rest=255)
    assert labels.entry('1.jpg') == 'sub/1.jpg' and labels.entry('2.jpg') is None
    expected = np.full((10, 12), 255)
    expected[2:8, 2:8] = 1
    expected[4:6, 4:6] = 0
    assert (labels.label('1.jpg')[0] == expected).all()
    # By ids, in another order, and with the rest as a class.
    other = CocoLabels(path, (('a',), ('b',)), ids=(3, 9), rest=1)
    expected = np.full((10, 12), 1)
    expected[2:8, 2:8] = 0
    expected[4:6, 4:6] = 1
    assert (other.label('1.jpg')[0] == expected).all()


def test_uncompressed_run_lengths():
    counts = [13, 2, 105]  # down the columns
    found = decode(dict(size=[10, 12], counts=counts), (10, 12), 'test')
    expected = np.repeat([0, 1, 0], counts).reshape(12, 10).T
    assert (found == expected).all()


def test_panoptic_ids_become_classes(tmp_path):
    ids = np.array([[0, 5, 5], [700, 700, 70000]])
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    save(rgb, tmp_path / 'pngs/1.png')
    info = [(5, 3), (700, 9), (70000, 3)]
    segments = [dict(id=i, category_id=c) for i, c in info]
    path = coco_json(
        tmp_path / 'p.json', [dict(image_id=1, file_name='1.png', segments_info=segments)]
    )
    label, files = CocoLabels(path, CLASSES, pngs=tmp_path / 'pngs').label('1.jpg')
    assert label.tolist() == [[255, 1, 1], [0, 0, 1]]
    assert files == [tmp_path / 'pngs/1.png']
    with pytest.raises(UserError, match='folder of the PNGs'):
        CocoLabels(path, CLASSES)


def test_what_coco_leaves_open_is_refused(tmp_path):
    path = coco_json(tmp_path / 'i.json', [])
    with pytest.raises(UserError, match='pixels in no instance'):
        CocoLabels(path, CLASSES)
    with pytest.raises(UserError, match='category for every class, found none for ship'):
        CocoLabels(path, (('water',), ('ship',)), rest=255)
    bad = dict(image_id=1, category_id=3, segmentation=[[1, 2, 3, 4]])
    labels = CocoLabels(coco_json(path, [bad]), CLASSES, rest=255)
    with pytest.raises(UserError, match=r'image 1\.jpg: expected a segmentation'):
        labels.label('1.jpg')
    path.write_text('{"images": []}')
    with pytest.raises(UserError, match="COCO format, where 'annotations'"):
        CocoLabels(path, CLASSES)


# ---------------------------------------------------------------------- parts
NAMES = [f'clip{c}_{i:03d}.png' for c in range(6) for i in range(7)]


def test_parts_are_drawn_by_seed_and_have_the_wanted_sizes():
    groups = group_names(NAMES, None)
    first = random_parts(groups, (60, 10, 30), 0)
    assert [len(first[p]) for p in ('train', 'val', 'test')] == [25, 4, 13]
    assert sorted(sum(first.values(), [])) == sorted(NAMES)
    assert random_parts(dict(reversed(groups.items())), (60, 10, 30), 0) == first
    assert random_parts(groups, (60, 10, 30), 1) != first


def test_groups_are_never_divided():
    groups = group_names(NAMES, '^[^_]+')
    assert [len(g) for g in groups.values()] == [7] * 6
    for parts in (random_parts(groups, (60, 10, 30), 3), stretches(groups, (60, 10, 30))):
        clips = [{name.split('_')[0] for name in names} for names in parts.values()]
        assert all(clips) and sum(map(len, clips)) == len(set.union(*clips)) == 6


def test_a_stretch_is_consecutive():
    parts = stretches(group_names(NAMES, None), (50, 0, 50))
    assert parts == dict(train=NAMES[:21], val=[], test=NAMES[21:])


@pytest.mark.parametrize('number', range(3, 50))
def test_no_part_is_empty(number):
    sizes = wanted_sizes(number, (60, 10, 30))
    assert sum(sizes) == number and min(sizes) >= 1


def test_impossible_divisions_are_refused(tmp_path):
    with pytest.raises(UserError, match='at least 3 images'):
        wanted_sizes(2, (60, 10, 30))
    with pytest.raises(UserError, match='at least 3 .*found 1'):
        random_parts(group_names(NAMES, 'clip'), (60, 10, 30), 0)
    with pytest.raises(UserError, match='regular expression'):
        group_names(NAMES, '(')
    with pytest.raises(UserError, match='every name has'):
        group_names(NAMES, 'clip0')
    with pytest.raises(UserError, match='found other/1'):
        folder_parts(['train/1.png', 'other/1.png'])
    with pytest.raises(UserError, match='found none in test'):
        folder_parts(['train/1.png'])


def test_lists_and_folders(tmp_path):
    assert folder_parts(['test/2.png', 'train/1.png']) == dict(
        train=['train/1.png'], val=[], test=['test/2.png']
    )
    (tmp_path / 'train.txt').write_text('clip0_000\n\nclip1_000.png\n')
    with pytest.raises(UserError, match=r'test\.txt: expected a list'):
        listed_parts(NAMES, tmp_path)
    (tmp_path / 'test.txt').write_text('clip0_001\n')
    expected = dict(train=['clip0_000.png', 'clip1_000.png'], val=[], test=['clip0_001.png'])
    assert listed_parts(NAMES, tmp_path) == expected
    (tmp_path / 'val.txt').write_text('clip0_000\n')
    with pytest.raises(UserError, match=r'found clip0_000\.png, which train\.txt has'):
        listed_parts(NAMES, tmp_path)
