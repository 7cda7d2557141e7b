import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmprompt.common.errors import UserError
from mmprompt.datasets import streets
from mmprompt.datasets.streets import classes, command, conditions, render, writer
from mmprompt.datasets.streets.scene import build, scene_random

SIZE = (96, 192)


@pytest.fixture(scope='module')
def scenes():
    """Label and instance maps of 60 scenes at full size."""
    return [render.labels(build(scene_random(0, 'train', i), (256, 512))) for i in range(60)]


def snapshot(folder: Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def make(out, *extra, num=2, split='val'):
    return command.main(
        ['--out', str(out), '--split', split, '--num', str(num), '--size', '96x192', *extra]
    )


def test_classes_are_those_of_mmseg_in_order():
    from mmseg.datasets import CityscapesDataset

    assert streets.CLASSES == CityscapesDataset.METAINFO['classes']


def test_same_scene_same_bytes_whatever_came_before():
    first = streets.sample(3, 'train', 5, 'rain', SIZE)
    streets.sample(3, 'train', 0, 'night', SIZE)
    again = streets.sample(3, 'train', 5, 'rain', SIZE)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize('index', [0, 1, 2])
def test_conditions_change_pixels_and_never_labels(index):
    samples = {c: streets.sample(1, 'val', index, c, SIZE) for c in streets.CONDITIONS}
    image, labels, instances = samples['clear']
    for name, other in samples.items():
        assert other[1].tobytes() == labels.tobytes()
        assert other[2].tobytes() == instances.tobytes()
        if name != 'clear':
            assert np.abs(other[0].astype(int) - image).mean() > 8, name


@pytest.mark.parametrize('other', [(1, 'train', 0), (0, 'val', 0), (0, 'train', 1)])
def test_seed_split_and_index_each_give_another_scene(other):
    first, second = (streets.sample(*key, size=SIZE)[1] for key in ((0, 'train', 0), other))
    assert (first != second).any()


def test_every_class_is_in_enough_images(scenes):
    present = np.zeros(256)
    for labels, _ in scenes:
        present += np.bincount(labels.ravel(), minlength=256) >= 30
    share = present[:19] / len(scenes)
    assert (share > 0.12).all(), dict(zip(streets.CLASSES, share.round(2), strict=True))
    assert present[classes.IGNORE] > 0


def test_instances_agree_with_labels(scenes):
    train_id = {label: k for k, label in enumerate(classes.LABEL_IDS)}
    for labels, instances in scenes[:20]:
        assert labels.dtype == np.uint8 and instances.dtype == np.uint16
        for value in np.unique(instances).tolist():
            label = value // 1000 if value >= 1000 else value
            found = np.unique(labels[instances == value]).tolist()
            assert found == [train_id.get(label, classes.IGNORE)]
            assert (value >= 1000) == (found[0] in classes.THINGS)


def test_weather_looks_like_weather():
    mean, sky_contrast = {}, {}
    for name in streets.CONDITIONS:
        images = [streets.sample(0, 'val', i, name, SIZE)[0] for i in range(6)]
        mean[name] = np.mean(images)
        sky_contrast[name] = np.mean([im[30:60].std() for im in images])
    assert mean['night'] < 0.6 * mean['clear'] and mean['rain'] < mean['clear'] < mean['snow']
    assert sky_contrast['fog'] < 0.7 * sky_contrast['clear']


def test_fog_follows_depth():
    scene = build(scene_random(0, 'val', 0), SIZE)
    surfaces = render.buffers(scene, np.random.default_rng(0))
    clear, thick = (
        conditions._veil(surfaces.albedo, surfaces.depth, k, np.full(3, 0.7)) for k in (0.0, 0.05)
    )
    share = np.abs(thick - 0.7).mean(0) / np.maximum(np.abs(clear - 0.7).mean(0), 1e-6)
    assert np.allclose(share, np.exp(-0.05 * surfaces.depth), atol=1e-3)


def test_generator_hash_covers_every_source(tmp_path, monkeypatch):
    folder = Path(writer.__file__).parent
    free = {'__init__.py', 'writer.py', 'command.py'}
    assert set(writer.SOURCES) == {p.name for p in folder.glob('*.py')} - free
    before = streets.generator_hash()
    for name in writer.SOURCES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(writer, '__file__', str(tmp_path / 'writer.py'))
    assert streets.generator_hash() == before
    with open(tmp_path / 'scene.py', 'a') as file:
        file.write('#')
    assert streets.generator_hash() != before


def test_mmseg_reads_the_folder(tmp_path, capsys):
    from mmseg.datasets import CityscapesDataset

    out = tmp_path / 'streets'
    assert make(out, '--condition', 'snow') == 0
    assert make(out, '--condition', 'snow', split='train', num=1) == 0
    record = json.loads((out / 'streets.json').read_text())
    assert record['splits'] == {'val': 2, 'train': 1} and record['condition'] == 'snow'
    assert record['generator'] == streets.generator_hash() and record['size'] == list(SIZE)
    dataset = CityscapesDataset(
        data_root=str(out),
        pipeline=[],
        serialize_data=False,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    )
    assert len(dataset) == 2
    image, labels, instances = streets.sample(0, 'val', 1, 'snow', SIZE)
    row = dataset.get_data_info(1)
    assert 'streets-snow_000001_000000' in row['img_path']
    assert (cv2.imread(row['img_path']) == image).all()
    assert (cv2.imread(row['seg_map_path'], cv2.IMREAD_UNCHANGED) == labels).all()
    other = row['seg_map_path'].replace('labelTrainIds', 'instanceIds')
    assert (cv2.imread(other, cv2.IMREAD_UNCHANGED) == instances).all()


def test_identical_is_reused_and_different_refused(tmp_path, capsys):
    assert make(tmp_path) == 0
    before = snapshot(tmp_path)
    assert make(tmp_path) == 0
    assert 'reused' in capsys.readouterr().out
    for extra, key in (
        (['--seed', '1'], 'seed'),
        (['--condition', 'fog'], 'condition'),
        (['--num', '3'], 'images'),
        (['--size', '96x196'], 'size'),
    ):
        assert make(tmp_path, *extra) == 2
        message = capsys.readouterr().err
        assert message.startswith('error: ') and message.count('\n') == 1
        assert 'streets.json' in message and key in message
    assert snapshot(tmp_path) == before


def test_damaged_folders_are_named(tmp_path, capsys):
    assert make(tmp_path) == 0
    next((tmp_path / 'gtFine' / 'val').rglob('*instanceIds.png')).unlink()
    assert make(tmp_path) == 2
    assert 'instanceIds' in capsys.readouterr().err
    (tmp_path / 'streets.json').write_text('{')
    assert make(tmp_path) == 2
    assert 'streets.json' in capsys.readouterr().err
    (tmp_path / 'streets.json').unlink()
    assert make(tmp_path) == 2
    assert 'leftImg8bit' in capsys.readouterr().err


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(writer.cv2, 'imwrite', lambda *_: False)
    with pytest.raises(UserError, match='PNG'):
        streets.generate(tmp_path / 'new', 'val', 1, size=SIZE)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    'extra, key',
    [
        (['--num', '0'], '--num'),
        (['--seed', '-1'], '--seed'),
        (['--split', '../x'], '--split'),
        (['--size', '1x9'], '--size'),
    ],
)
def test_bad_arguments_are_named(tmp_path, capsys, extra, key):
    assert make(tmp_path / 'new', *extra) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()
