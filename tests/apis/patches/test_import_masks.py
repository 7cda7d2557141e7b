"""tools/import_patches.py: the same masks in every kind of source give the same store."""

import csv
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mmprompt.apis.patches.import_masks import main, union
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from mmprompt.common.patches import PatchSet

SIZE = (24, 40)
KEYS = ('a/000000000007.jpg', 'b/000000000012.jpg')


def masks_of(seed: int, count: int = 3) -> np.ndarray:
    """Disjoint masks (count, H, W): whatever can hold masks can hold these."""
    cells = np.random.default_rng(seed).integers(0, count + 1, (6, 10)).repeat(4, 0).repeat(4, 1)
    return np.stack([cells == i for i in range(1, count + 1)])


@pytest.fixture
def place(tmp_path):
    for key in KEYS:
        (tmp_path / 'images' / key).parent.mkdir(parents=True)
        Image.new('RGB', SIZE[::-1]).save(tmp_path / 'images' / key)
    return tmp_path


def rles(seed: int, text: bool = True) -> list[dict]:
    codes = PatchSet.from_masks(masks_of(seed)).rles
    return [dict(size=list(SIZE), counts=c.decode() if text else c) for c in codes]


def run(place, *sources, more=(), out='store.db') -> int:
    given = ['--images', place / 'images', '--out', place / out, '--source', *sources, *more]
    return main([str(a) for a in given])


def refused(place, capsys, *sources, **how) -> str:
    (place / 'store.db.part').unlink(missing_ok=True)  # of another source, which it would refuse
    assert run(place, *sources, **how) == 2 and not (place / 'store.db').exists()
    return capsys.readouterr().err


def found(place, out='store.db') -> list[PatchSet]:
    store = PatchStore(place / out)
    assert store.keys() == sorted(KEYS)
    return [store.get(key) for key in KEYS]


def same_masks(place, scores=(1, 1, 1), out='store.db') -> None:
    for seed, patches in enumerate(found(place, out)):
        assert patches.size == SIZE and np.array_equal(patches.decode(), masks_of(seed))
        assert patches.scores.tolist() == pytest.approx(list(scores))


SCORES = (0.5, 0.9, 0.25)


def coco_results(place):
    rows = [
        dict(image_id=image, category_id=1, segmentation=rle, score=score)
        for seed, image in enumerate((7, 12))
        for rle, score in zip(rles(seed), SCORES)
    ]
    (place / 'all.json').write_text(json.dumps(rows))
    return 'coco=', 'all.json', SCORES


def coco_annotations(place):
    plain = []
    for seed in range(2):
        for mask in masks_of(seed):
            columns = mask.T.ravel()
            cuts = np.flatnonzero(np.diff(columns)) + 1
            runs = np.diff(np.concatenate([[0], cuts, [columns.size]])).tolist()
            counts = [0, *runs] if columns[0] else runs
            plain.append((seed, dict(size=list(SIZE), counts=counts)))
    rows = [dict(id=i, image_id=50 + s, segmentation=m) for i, (s, m) in enumerate(plain)]
    images = [dict(id=50 + s, file_name=key, height=24, width=40) for s, key in enumerate(KEYS)]
    content = dict(images=images, annotations=rows, categories=[])
    (place / 'all.json').write_text(json.dumps(content))
    return 'coco=', 'all.json', (1, 1, 1)


def coco_by_image(place):
    content = {KEYS[0]: rles(0), '000000000012': rles(1)}
    (place / 'all.json').write_text(json.dumps(content))
    return 'coco=', 'all.json', (1, 1, 1)


def coco_folder(place):
    (place / 'each').mkdir()
    rows = [
        [dict(segmentation=r, predicted_iou=s) for r, s in zip(rles(i), SCORES)] for i in (0, 1)
    ]
    (place / 'each/000000000007.json').write_text(json.dumps(rows[0]))
    (place / 'each/12.json').write_text(json.dumps(dict(image={}, annotations=rows[1])))
    return 'coco=', 'each', SCORES


def pickles(place):
    (place / 'each').mkdir()
    for seed, name in enumerate(('000000000007', '000000000012')):
        content = dict(
            indexes=name,
            boxes=np.zeros((3, 4), np.float32),
            segmentations=rles(seed, text=seed == 0),
            scores=np.array(SCORES, np.float32),
        )
        (place / f'each/{name}.pkl').write_bytes(pickle.dumps(content, protocol=4 - 2 * seed))
    return 'pickles=', 'each', SCORES


def label_maps(place):
    for seed, name in enumerate(('each/a/000000000007.png', 'each/000000000012.png')):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.tensordot([3, 70, 255], masks_of(seed), 1).astype(np.uint8)
        if seed:  # colours, in the order of 0xRRGGBB
            values = np.stack([values // 2, 255 - values, values], -1) * (values > 0)[..., None]
        Image.fromarray(values.astype(np.uint8)).save(place / name)
    return 'masks=', 'each', (1, 1, 1)


def binary_masks(place):
    for seed, name in enumerate(('a/000000000007', '000000000012')):
        (place / 'each' / name).mkdir(parents=True)
        for i, mask in enumerate(masks_of(seed)):
            picture = Image.fromarray(mask.astype(np.uint8) * (255 if i else 1))
            picture = picture.convert('RGB') if i == 2 else picture
            picture.save(place / 'each' / name / f'{i + 8}.png')  # 10 comes behind 9
        with (place / 'each' / name / 'metadata.csv').open('w') as stream:
            rows = [dict(id=i + 8, area=1, predicted_iou=s) for i, s in enumerate(SCORES)]
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 'masks=', 'each', SCORES


def arrays(place):
    (place / 'each').mkdir()
    np.save(place / 'each/000000000007.npy', masks_of(0))
    np.save(place / 'each/000000000012.npy', np.tensordot([-4, 1, 2**40], masks_of(1), 1))
    return 'masks=', 'each', (1, 1, 1)


def another_store(place):
    with PatchStoreWriter(place / 'other.db', dict(generator='x', settings={})) as writer:
        for seed, key in enumerate(KEYS):
            writer.add(key, PatchSet.from_masks(masks_of(seed), SCORES))
        writer.finish()
    return 'patches=', 'other.db', SCORES


KINDS = (
    coco_results,
    coco_annotations,
    coco_by_image,
    coco_folder,
    pickles,
    label_maps,
    binary_masks,
    arrays,
    another_store,
)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_gives_the_masks_that_were_put_in(place, capsys, kind):
    prefix, name, scores = kind(place)
    assert run(place, f'{prefix}{place / name}') == 0
    assert '2 images, 6 patches (3.0 an image)' in capsys.readouterr().out
    same_masks(place, scores)
    meta = PatchStore(place / 'store.db').meta
    assert meta['generator'] == 'import' and str(place) not in json.dumps(meta)


def test_yolo_polygons_become_patches(place):
    for key in KEYS:
        path = (place / 'labels' / key).with_suffix('.txt')
        path.parent.mkdir(parents=True)
        path.write_text('300 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n')
    assert run(place, f'yolo={place / "labels"}') == 0
    for patches in found(place):
        expected = np.zeros(SIZE, bool)
        expected[6:18, 10:30] = True
        assert np.array_equal(patches.decode()[0], expected) and len(patches) == 1


def test_sources_are_joined_in_their_order_and_what_is_there_is_left_out(place, capsys):
    coco_results(place)
    moved = np.roll(masks_of(0), 1, axis=2)
    np.save(place / 'extra.npy', moved)
    (place / 'extra').mkdir()
    (place / 'extra.npy').rename(place / 'extra/000000000007.npy')
    sources = f'coco={place / "all.json"}', f'masks={place / "extra"}'
    assert run(place, *sources, out='all.db') == 0
    said = capsys.readouterr().out
    assert 'all.json: 2 images' in said and 'extra: 1 images' in said
    first, second = found(place, 'all.db')
    assert np.array_equal(first.decode(), np.concatenate([masks_of(0), moved])) and len(second) == 3
    assert first.scores.tolist() == pytest.approx([*SCORES, 1, 1, 1])
    assert run(place, *sources, more=['--dedupe', '0.3'], out='few.db') == 0
    first, second = found(place, 'few.db')
    assert np.array_equal(first.decode()[:3], masks_of(0)) and 3 <= len(first) < 6
    hashes = [PatchStore(place / name).meta['settings_hash'] for name in ('all.db', 'few.db')]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize('limit', [0.2, 0.5, 0.9])
def test_dedupe_is_the_loop_by_source_and_score(limit):
    random = np.random.default_rng(0)
    sets = []
    for _ in range(3):
        masks = np.zeros((9, 20, 20), bool)
        for mask in masks:
            y, x = random.integers(0, 12, 2)
            mask[y : y + random.integers(0, 9), x : x + 8] = True  # some are empty
        sets.append(PatchSet.from_masks(masks, random.random(9)))
    kept = []
    for n, patches in enumerate(sets):
        for i in np.argsort(-patches.scores, kind='stable'):
            mask = patches.decode()[i]
            near = [(mask & other).sum() / (mask | other).sum() for *_, other in kept if mask.any()]
            if mask.any() and all(value <= limit for value in near):
                kept.append((n, i, mask))
    kept.sort(key=lambda row: row[:2])
    joined = union(sets, limit)
    assert len(union(sets)) == 27 > len(joined)
    assert np.array_equal(joined.decode(), np.stack([mask for *_, mask in kept]))
    assert len(union([PatchSet.from_rles([], (4, 4))] * 2, 0.5)) == 0


def test_images_without_masks_are_an_error_or_have_none(place, capsys):
    pickles(place)
    (place / 'each/000000000012.pkl').unlink()
    said = refused(place, capsys, f'pickles={place / "each"}')
    assert f'found none of 1: {KEYS[1]}' in said and '--allow-missing' in said
    assert run(place, f'pickles={place / "each"}', more=['--allow-missing']) == 0
    assert f'without patches (1): {KEYS[1]}' in capsys.readouterr().out
    assert [len(patches) for patches in found(place)] == [3, 0]


def test_names_that_two_images_share_find_neither(place, capsys):
    (place / 'images/b/000000000007.jpg').write_bytes((place / 'images' / KEYS[0]).read_bytes())
    coco_results(place)
    assert 'found none of 2: a/0' in refused(place, capsys, f'coco={place / "all.json"}')


def test_what_cannot_be_used_is_named(place, capsys):
    pickles(place)
    source = f'pickles={place / "each"}'
    path = place / 'each/000000000012.pkl'
    torch.save(dict(bbox=dict(iou=torch.zeros(2))), path)
    assert 'found a file of torch.save' in refused(place, capsys, source)
    path.write_bytes(pickle.dumps(dict(bbox=1)))
    assert 'expected a dict with segmentations' in refused(place, capsys, source)
    wrong = [dict(size=[40, 24], counts=r['counts']) for r in rles(1)]
    path.write_bytes(pickle.dumps(dict(segmentations=wrong, scores=SCORES)))
    assert '24x40 pixels' in refused(place, capsys, source)
    path.write_bytes(pickle.dumps(dict(segmentations=rles(1), scores=[1.0])))
    assert 'a score each' in refused(place, capsys, source)
    (place / 'wrong.json').write_text('{"a": 1}')
    assert 'found another JSON' in refused(place, capsys, f'coco={place / "wrong.json"}')
    (place / 'maps').mkdir()
    Image.new('L', (7, 7)).save(place / 'maps/000000000007.png')
    assert 'found 7x7' in refused(place, capsys, f'masks={place / "maps"}')
    images = [dict(id=7, file_name='000000000007.jpg'), dict(id=12)]
    (place / 'bare.json').write_text(json.dumps(dict(images=images, annotations=[])))
    assert 'found image 12 without' in refused(place, capsys, f'coco={place / "bare.json"}')
    rows = [dict(r, image_id=7, score=float('nan')) for r in rles(0)]
    (place / 'nan.json').write_text(json.dumps(rows))
    assert 'the score nan' in refused(place, capsys, f'coco={place / "nan.json"}')
    assert 'KIND=PATH' in refused(place, capsys, 'boxes=x')
    assert 'found nothing' in refused(place, capsys, f'masks={place / "none"}')


def test_a_run_that_was_stopped_goes_on(place, capsys):
    pickles(place)
    path, source = place / 'each/000000000012.pkl', f'pickles={place / "each"}'
    content = path.read_bytes()
    path.write_bytes(b'cut')
    assert 'whole pickle' in refused(place, capsys, source)
    path.write_bytes(content)
    (place / 'each/000000000007.pkl').write_bytes(b'no longer needed')
    assert run(place, source) == 0
    said = capsys.readouterr().out
    assert '1 images, 3 patches' in said and '1 images were there already' in said
    same_masks(place, SCORES)


def repaint(place, key):
    Image.new('RGB', SIZE[::-1], (9, 9, 9)).save(place / 'images' / key)


def test_images_that_are_others_now_are_imported_anew(place, capsys):
    pickles(place)
    source = f'pickles={place / "each"}'
    assert run(place, source) == 0
    store = PatchStore(place / 'store.db')
    assert store.digest(KEYS[1]) == image_digest(place / 'images' / KEYS[1])
    repaint(place, KEYS[1])
    assert run(place, source) == 0
    said = capsys.readouterr().out
    assert '1 images, 3 patches' in said and '1 images are others than before' in said
    store = PatchStore(place / 'store.db')
    assert store.digest(KEYS[1]) == image_digest(place / 'images' / KEYS[1])
    same_masks(place, SCORES)


def test_a_store_of_other_images_is_no_source(place, capsys):
    pickles(place)
    assert run(place, f'pickles={place / "each"}', out='other.db') == 0
    repaint(place, KEYS[0])
    said = refused(place, capsys, f'patches={place / "other.db"}')
    assert str(place / 'images' / KEYS[0]) in said and 'found another file' in said
