"""tools/patch_stats.py end to end on toy streets, against loops over painted masks."""

import csv
import json
import re

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from toy_patches import CAR, CLASSES, PERSON, THINGS, toy_patch_dataset, write_toy_patches

from mmprompt.apis.patches.pictures import Uncovered, draw_object, paint, spread, window
from mmprompt.apis.patches.stats import main, measure
from mmprompt.apis.patches.truth import PatchSplit, unit_runs
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.units import CocoMasks, TrueUnits


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('streets')
    write_toy_patches(root, 4)
    write_toy_patches(root, 2, 'val', seed=7)
    parts = {split: toy_patch_dataset(root, split=split, test=True) for split in ('train', 'val')}
    train, test = (dict(dataset=part.to_dict()) for part in parts.values())
    train['dataset']['pipeline'][1]['min_area'] = 4  # that of training, and a crop that is not used
    train['dataset']['pipeline'].insert(-1, dict(type='DetRandomCrop', crop_size=(8, 8)))
    path = root / 'config.py'
    path.write_text(f'train_dataloader = {train!r}\ntest_dataloader = {test!r}\n')
    return path


def by_hand(data, split: str) -> list[dict]:
    """Every instance of the label files with the IoU of its best patch."""
    rows = []
    store = PatchStore(data.parent / f'toy_{split}.patches')
    for path in sorted((data.parent / f'gtFine/{split}').rglob('*_instanceIds.png')):
        ids = np.asarray(Image.open(path))
        name = path.name.replace('_gtFine_instanceIds', '_leftImg8bit')
        patches = store.get(f'toy/{name}').decode()
        patches = patches[patches.sum((1, 2)) >= (4 if split == 'train' else 1)]
        for number in np.unique(ids[ids >= 1000]):
            mask = ids == number
            ious = [(mask & p).sum() / (mask | p).sum() for p in patches]
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            rows.append(dict(image=name, mask=mask, box=box, best=max(ious), count=len(patches)))
    return rows


def test_everything_is_printed_and_written(data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main([str(data), '--floors', '--out', str(out), '--pictures', '3']) == 0
    said, stats = capsys.readouterr().out, json.loads((out / 'stats.json').read_text())['splits']
    for split, folder in (('train', 'train'), ('test', 'val')):
        rows = by_hand(data, folder)
        best = np.array([row['best'] for row in rows])
        counts = {row['image']: row['count'] for row in rows}
        found = stats[split]
        assert found['images'] == len(counts) and found['patches'] == sum(counts.values())
        assert f'{split}: {len(counts)} images, {sum(counts.values())} patches' in said
        assert found['objects'] == len(rows) and found['measured'] == 'objects'
        table = found['quality']['best']
        assert table['mIoU'] == pytest.approx(100 * best.mean(), abs=1e-3)
        assert table['MR_0.5'] == pytest.approx(100 * (best <= 0.5).mean(), abs=1e-3)
        small = [row['mask'].sum() < 256 for row in rows]
        assert found['by_size']['8^2 - 16^2']['objects'] == sum(small)
        assert found['by_size']['large']['quality']['best']['mIoU'] is None
        assert found['percent_of_pixels_in_patches'] == pytest.approx(100)
        with (out / f'{split}_uncovered.csv').open() as stream:
            listed = list(csv.DictReader(stream))
        missed = [row for row in rows if row['best'] <= 0.5]
        assert found['uncovered'] == len(listed) == len(missed)
        for row in listed:
            box = tuple(int(row[k]) for k in ('x1', 'y1', 'x2', 'y2'))
            (same,) = [m for m in missed if m['image'] in row['image'] and m['box'] == box]
            assert float(row['iou_best']) == pytest.approx(same['best'], abs=1e-4)
            assert int(row['pixels']) == same['mask'].sum()
            assert row['class'] in (CLASSES[CAR], CLASSES[PERSON])
        assert found['floors']['merge oracle (parts)']['PQ'] == 100
        assert f'| {split}: merge oracle (greedy) | 100.0 |' in re.sub(' +', ' ', said)
        assert Image.open(out / f'{split}_mergeable.png').size[0] > 900  # three of them
    assert not (out / 'test_missed.png').exists()


def test_options_choose_images_regions_and_store(data, tmp_path, capsys):
    assert main([str(data), '--split', 'train', '--images', '2']) == 0
    assert 'train: 2 images' in capsys.readouterr().out
    assert main([str(data), '--split', 'test', '--regions']) == 0
    said = capsys.readouterr().out
    assert '10 regions of classes (Table 9)' in said  # road, building, sky, car, person, twice
    store = str(data.parent / 'toy_train.patches')
    assert main([str(data), '--store', store]) == 2
    assert 'expected one split' in capsys.readouterr().err
    assert main([str(data), '--split', 'train', '--store', store, '--images', '1']) == 0
    assert main([str(data), '--split', 'val']) == 2
    assert 'expected val_dataloader.dataset' in capsys.readouterr().err


def test_a_pipeline_without_patches_or_units_is_refused(data):
    cfg = Config.fromfile(data)
    steps = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [s for s in steps if s['type'] != 'LoadUnits']
    with pytest.raises(UserError, match='expected LoadUnits in the pipeline of test_dataloader'):
        PatchSplit(cfg, 'test')


def test_regions_are_measured_where_nothing_is_an_instance(data, capsys):
    options = ['test_dataloader.dataset.pipeline.4.thing_classes=[]']
    assert main([str(data), '--split', 'test', '--cfg-options', *options]) == 0
    assert '10 regions of classes' in capsys.readouterr().out


def test_stats_name_each_object_by_its_unit(data):
    split = PatchSplit(Config.fromfile(data), 'train')
    stats = measure(split)
    for (image, unit), label, box in zip(stats.places, stats.labels, stats.boxes):
        units = split.read(image).units
        assert units.is_instance[unit] and units.labels[unit] == label and label in THINGS
        assert box.tolist() == split.read(image).runs.boxes()[unit].tolist()


@pytest.mark.parametrize('overlapping', [False, True])
def test_runs_of_units_are_their_masks(overlapping):
    random = np.random.default_rng(0)
    ids = random.choice([0, 1000, 12001, 12002, 14001], (6, 8)).repeat(2, 0).repeat(3, 1)
    units = TrueUnits.from_map(ids, THINGS)
    expected = [ids == 12001, ids == 12002, ids == 14001]
    if overlapping:
        expected = [random.random(ids.shape) < 0.5 for _ in range(2)]
        codes = PatchSet.from_masks(np.stack([*expected, expected[0]])).rles
        crowd = np.array([False, False, True])
        boxes = np.zeros((3, 4), np.float32)
        masks = CocoMasks(ids.shape, codes, np.array([11, 13, 13]), crowd, boxes)
        units = TrueUnits.from_masks(ids, masks)
    expected += [ids == 1000, ids // 1000 == 12, ids == 14001]
    runs = unit_runs(units)
    assert runs.count == len(units) == len(expected)
    for k, mask in enumerate(expected):
        assert np.array_equal(paint(runs, k), mask)
    assert runs.areas().tolist() == [mask.sum() for mask in expected]


def test_windows_stay_inside_and_hold_the_box():
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(20, 300, 2)
        x, y = random.integers(0, width), random.integers(0, height)
        box = (x, y, random.integers(x, width) + 1, random.integers(y, height) + 1)
        left, top, right, bottom = window(box, (height, width))
        assert 0 <= left <= box[0] and box[2] <= right <= width
        assert 0 <= top <= box[1] and box[3] <= bottom <= height


def test_an_object_is_outlined_and_its_patches_are_coloured():
    picture = Image.new('RGB', (60, 60), (10, 20, 30))
    true = np.zeros((60, 60), bool)
    true[20:40, 20:40] = True
    patches = PatchSet.from_masks(np.stack([true, np.zeros_like(true)]))
    drawn = np.asarray(draw_object(picture, true, patches, (20, 20, 40, 40), 'car'))
    colours = {tuple(c) for c in drawn.reshape(-1, 3)}
    assert (0, 200, 80) in colours and (255, 214, 0) in colours and (10, 20, 30) in colours
    left, right = drawn[90, 60], drawn[90, 182 + 60]  # inside of the object in both cells
    assert left.tolist() == [10, 20, 30] and right.tolist() != [10, 20, 30]


def test_a_sheet_shows_all_sizes():
    objects = [Uncovered(0, 0, 0, (0, 0, 1, 1), a, 0.1, 0.1, 0.1, 0.5) for a in range(101)]
    chosen = [o.area for o in spread(objects, 5)]
    assert chosen == [100, 75, 50, 25, 0] and len(spread(objects[:3], 5)) == 3
