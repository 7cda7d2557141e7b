import itertools
import json

import numpy as np
import pytest

from mmprompt.common.errors import UserError
from mmprompt.common.few_shot import Manifest, _Draw, choose, dataset_record

CLASSES = ('a', 'b', 'c', 'd')


def world(num=60, seed=0):
    presence = np.random.default_rng(seed).random((num, 4)) < [0.9, 0.5, 0.2, 0.05]
    presence[0, 3] = presence[1, 3] = True
    return [f'city/{i:03d}.png' for i in range(num)], presence


@pytest.mark.parametrize('seed', range(5))
def test_k_images_contain_each_class_and_no_class_is_overdrawn(seed):
    names, presence = world()
    manifest = choose(names, presence, CLASSES, 6, seed)
    for c, name in enumerate(CLASSES):
        chosen = sum(presence[names.index(n), c] for n in manifest.images)
        assert manifest.counts[name] == chosen >= min(6, presence[:, c].sum())
        assert manifest.available[name] == presence[:, c].sum()
    assert manifest.images == sorted(set(manifest.images))


def test_earlier_draws_are_counted():
    names = [str(i) for i in range(8)]
    presence = np.zeros((8, 2), bool)
    presence[:, 0] = True  # common, in all
    presence[:3, 1] = True  # rare, in three
    manifest = choose(names, presence, ('common', 'rare'), 2)
    assert len(manifest.images) == 2 and set(manifest.images) <= {'0', '1', '2'}
    sizes = [
        len(choose(names, presence, ('common', 'rare'), 2, seed, 'independent').images)
        for seed in range(10)
    ]
    assert max(sizes) == 4, 'independent draws do not know of one another'


def test_a_rarer_class_never_depends_on_a_commoner_one():
    names, presence = world()
    images = set()
    for fewer in itertools.accumulate([c] for c in np.argsort(presence.sum(0), kind='stable')):
        manifest = choose(names, presence[:, fewer], [CLASSES[c] for c in fewer], 6, 1)
        assert images <= set(manifest.images)
        images = set(manifest.images)


def test_the_same_for_everyone():
    names, presence = world()
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = choose([names[i] for i in order], presence[order], CLASSES, 3, 7)
    assert shuffled == choose(names, presence, CLASSES, 3, 7)
    assert shuffled.images != choose(names, presence, CLASSES, 3, 8).images
    # Written down: a change of these is a change of everyone's manifests.
    assert [int(i) for i in _Draw(0).some(np.arange(10), 4)] == [1, 2, 0, 8]
    assert sorted(_Draw(5).some(np.arange(9), 99)) == list(range(9))


def test_draws_are_uniform():
    hits = np.zeros((5, 5))
    for seed in range(2000):
        hits[np.arange(5), _Draw(seed).some(np.arange(5), 5)] += 1
    assert abs(hits / 2000 - 0.2).max() < 0.05


def test_too_few_is_reported():
    names, presence = world()
    manifest = choose(names, presence, CLASSES, 8)
    few = int(presence[:, 3].sum())
    assert few < 8 and manifest.shortfall() == {'d': few}


@pytest.mark.parametrize(
    'k, sampling, named',
    [
        (61, 'rarest-first', ['k=61', '60 images']),
        (0, 'rarest-first', ['k=0']),
        (2, 'best', ["'best'", 'independent']),
    ],
)
def test_impossible_requests(k, sampling, named):
    names, presence = world()
    with pytest.raises(UserError) as error:
        choose(names, presence, CLASSES, k, sampling=sampling)
    assert all(n in str(error.value) for n in named)


def test_a_class_without_images():
    names, presence = world()
    presence[:, 2] = False
    with pytest.raises(UserError, match='none for c.*--allow-missing'):
        choose(names, presence, CLASSES, 2)
    manifest = choose(names, presence, CLASSES, 2, allow_missing=True)
    assert manifest.counts['c'] == 0 and manifest.shortfall() == {'c': 0}


def test_record_follows_names_and_pixels_only():
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    one = dataset_record(['x', 'y'], {'x': label})
    assert one == dataset_record(['y', 'x'], {'x': np.asfortranarray(label.astype(np.int32))})
    others = [
        dataset_record(['x', 'z'], {'x': label}),
        dataset_record(['x', 'y'], {'x': label + 1}),
        dataset_record(['x', 'y'], {'x': label.reshape(3, 2)}),
    ]
    assert len({r['fingerprint'] for r in [one, *others]}) == 4


def test_manifest_file(tmp_path):
    manifest = choose(*world(), CLASSES, 3)
    path = tmp_path / 'deep' / 'm.json'
    manifest.save(path)
    assert Manifest.load(path) == manifest
    assert json.loads(path.read_text())['format'] == 1
    with pytest.raises(UserError, match='make_few_shot_split.py CONFIG --out'):
        Manifest.load(tmp_path / 'none.json')
    for text in ('{', '[]', '{"a": 1}', '{"kind": "few-shot", "format": 1, "x": 2}', '\x00'):
        path.write_text(text)
        with pytest.raises(UserError, match='something else'):
            Manifest.load(path)
    path.write_text('{"kind": "few-shot", "format": 2}')
    with pytest.raises(UserError, match='format 1, found format 2'):
        Manifest.load(path)
