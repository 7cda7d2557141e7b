"""COCO panoptic annotations: against Cityscapes' own files, RLE masks, and what can be wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.datasets import CityscapesDataset
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_panoptic import CocoPanopticSegDataset, rgb_to_ids
from mmprompt.datasets.few_shot import FewShotDataset
from mmprompt.registry import DATASETS, TRANSFORMS

CLASSES = CityscapesDataset.METAINFO['classes']
THINGS = tuple(range(11, 19))
#: Of training label i: the label's id in Cityscapes, which its panoptic JSON calls a category.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
STEM = 'bonn_000000_000019'
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotationsFromCocoPanoptic'),
    dict(type='PackPanopticInputs'),
]


def write_png(ids: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
    Image.fromarray(colours.astype(np.uint8)).save(path)


def write_json(path: Path, segments: list[dict], image_id='a', file_name='a.png', **parts) -> Path:
    categories = [
        dict(id=LABEL_IDS[i], name=name, isthing=int(i in THINGS), color=[i, i, i])
        for i, name in enumerate(CLASSES)
    ]
    annotation = dict(image_id=image_id, file_name=file_name, segments_info=segments)
    content = dict(
        images=[dict(id=image_id, file_name=file_name, height=32, width=48)],
        annotations=[annotation],
        categories=categories,
    )
    path.write_text(json.dumps({**content, **parts}))
    return path


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Training labels and instanceIds: two cars, a group of persons, road, wall, void."""
    labels = np.zeros((32, 48), np.uint8)
    labels[16:] = 3
    ids = np.where(labels == 0, 7, 12).astype(np.uint16)
    labels[4:10, 4:12], ids[4:10, 4:12] = 13, 26000
    labels[4:10, 20:30], ids[4:10, 20:30] = 13, 26001
    labels[20:28, 30:40], ids[20:28, 30:40] = 11, 24
    labels[31], ids[31] = 255, 1
    return labels, ids


@pytest.fixture
def cityscapes(tmp_path):
    """The same picture in both formats, in the folders of Cityscapes."""
    init_default_scope('mmprompt')
    labels, ids = truth()
    images, fine = tmp_path / 'leftImg8bit/val/bonn', tmp_path / 'gtFine/val/bonn'
    for folder in (images, fine):
        folder.mkdir(parents=True)
    Image.fromarray(np.stack([labels] * 3, -1)).save(images / f'{STEM}_leftImg8bit.png')
    Image.fromarray(labels).save(fine / f'{STEM}_gtFine_labelTrainIds.png')
    Image.fromarray(ids).save(fine / f'{STEM}_gtFine_instanceIds.png')
    panoptic = np.where(labels == 255, 0, ids.astype(int))
    write_png(panoptic, tmp_path / f'gtFine/cityscapes_panoptic_val/{STEM}_gtFine_panoptic.png')
    segments = []
    for value in np.unique(panoptic[panoptic > 0]).tolist():
        category = value // 1000 if value >= 1000 else value
        crowd = int(value < 1000 and LABEL_IDS.index(category) in THINGS)
        segments.append(dict(id=value, category_id=category, iscrowd=crowd, area=1, bbox=[]))
    annotation = dict(
        image_id=STEM, file_name=f'{STEM}_gtFine_panoptic.png', segments_info=segments
    )
    write_json(
        tmp_path / 'gtFine/cityscapes_panoptic_val.json',
        [],
        images=[dict(id=STEM, file_name=f'{STEM}_gtFine_leftImg8bit.png', height=32, width=48)],
        annotations=[annotation],
    )
    return tmp_path


def of_cityscapes(root: Path, **kwargs) -> dict:
    return dict(
        type='CocoPanopticSegDataset',
        data_root=str(root),
        ann_file='gtFine/cityscapes_panoptic_val.json',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/cityscapes_panoptic_val'),
        img_name='{folder}/{id}_leftImg8bit.png',
        pipeline=PIPELINE,
        **kwargs,
    )


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_the_same_targets_as_from_the_files_of_cityscapes(cityscapes, flip):
    move = dict(type='mmseg.RandomFlip', prob=flip)
    dataset = DATASETS.build(
        {**of_cityscapes(cityscapes), 'pipeline': [*PIPELINE[:2], move, PIPELINE[2]]}
    )
    found = dataset[0]['data_samples']
    results = dict(
        img_path=str(cityscapes / f'leftImg8bit/val/bonn/{STEM}_leftImg8bit.png'),
        seg_map_path=str(cityscapes / f'gtFine/val/bonn/{STEM}_gtFine_labelTrainIds.png'),
        seg_fields=[],
        reduce_zero_label=False,
        label_map=None,
    )
    for step in (
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='LoadCityscapesPanoptic'),
        move,
        dict(type='PackPanopticInputs'),
    ):
        results = TRANSFORMS.build(step)(results)
    wanted = results['data_samples']
    assert found.metainfo['img_path'] == wanted.metainfo['img_path']
    assert torch.equal(found.gt_sem_seg.data, wanted.gt_sem_seg.data)
    assert found.gt_sem_seg.data.dtype == wanted.gt_sem_seg.data.dtype
    assert torch.equal(found.gt_panoptic_seg.data, wanted.gt_panoptic_seg.data)
    assert found.gt_segments.ids.tolist() == [1000, 4000, 12000, 14001, 14002]
    for key, value in wanted.gt_segments.items():
        assert torch.equal(found.gt_segments[key], value), key


def test_meta_data(cityscapes):
    meta = DATASETS.build(of_cityscapes(cityscapes, test_mode=True)).metainfo
    assert meta['classes'] == CLASSES
    assert meta['thing_classes'] == tuple(CLASSES[i] for i in THINGS)
    assert meta['palette'][18] == [18, 18, 18]


def test_chosen_classes_in_their_own_order(cityscapes):
    """The things of `LoadCityscapesPanoptic` are others; the data set's own count."""
    dataset = DATASETS.build(of_cityscapes(cityscapes, metainfo=dict(classes=('car', 'road'))))
    sample = dataset[0]['data_samples']
    assert sample.gt_segments.ids.tolist() == [1001, 1002, 2000]
    assert sample.gt_segments.is_thing.tolist() == [True, True, False]
    labels, _ = truth()
    wanted = np.where(labels == 13, 0, np.where(labels == 0, 1, 255))
    assert np.array_equal(sample.gt_sem_seg.data[0], wanted)
    with pytest.raises(UserError, match="no \\['boat'\\]"):
        DATASETS.build(of_cityscapes(cityscapes, metainfo=dict(classes=('car', 'boat'))))


def test_few_shots_of_it(cityscapes):
    few = FewShotDataset(of_cityscapes(cityscapes), k=1, allow_missing=True)
    assert len(few) == 1 and few.manifest.counts['car'] == 1 and few.manifest.counts['bus'] == 0
    assert 'gt_segments' in few[0]['data_samples']


def load(tmp_path, ids: np.ndarray, segments: list[dict], pipeline=None) -> dict:
    init_default_scope('mmprompt')
    write_png(ids, tmp_path / 'png/a.png')
    (tmp_path / 'images').mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(tmp_path / 'images/a.png')
    path = write_json(tmp_path / 'a.json', segments)
    prefix = dict(img_path=str(tmp_path / 'images'), seg_map_path=str(tmp_path / 'png'))
    return CocoPanopticSegDataset(str(path), prefix, pipeline=pipeline or PIPELINE[:2])[0]


def car(segment_id: int, **more) -> dict:
    return dict(id=segment_id, category_id=26, **more)


def test_large_ids_and_void(tmp_path):
    big = 200 + 256 * 100 + 65536 * 250
    results = load(tmp_path, np.array([[0, big], [3, big]]), [car(big), car(3)])
    assert results['gt_panoptic_map'].tolist() == [[0, 14001], [14002, 14001]]
    assert results['gt_seg_map'].tolist() == [[255, 13], [13, 13]]


def test_most_segments_of_a_class(tmp_path):
    ids = np.arange(1, 1001).reshape(20, 50)
    few = np.minimum(ids, 999)
    results = load(tmp_path, few, [car(i) for i in range(1, 1000)])
    assert results['gt_panoptic_map'].max() == 14999
    assert len(np.unique(results['gt_panoptic_map'])) == 999
    with pytest.raises(UserError, match=r'a\.png.*at most 999.*found 1000'):
        load(tmp_path, ids, [car(i) for i in range(1, 1001)])
    crowds = [car(i, iscrowd=1) for i in range(1, 1001)]
    assert np.unique(load(tmp_path, ids, crowds)['gt_panoptic_map']).tolist() == [14000]


def test_png_and_json_that_disagree_are_refused(tmp_path):
    ids = np.array([[1, 2]])
    for segments, words in (
        ([car(1)], r'1 others \(\[2\]'),
        ([car(1), car(2), car(7)], r'1 missing \(\[7\]'),
        ([car(1), car(2), car(2)], 'each once'),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path, ids, segments)


def test_segments_that_nothing_shows_can_be_allowed(tmp_path):
    ids = np.array([[1, 2]])
    allowed = [PIPELINE[0], dict(PIPELINE[1], allow_hidden=True)]
    results = load(tmp_path, ids, [car(1), car(2), car(7)], allowed)
    assert results['gt_panoptic_map'].tolist() == [[14001, 14002]]
    with pytest.raises(UserError, match=r'1 others \(\[2\]'):
        load(tmp_path, ids, [car(1), car(7)], allowed)


def test_bad_files_are_named(cityscapes):
    png = cityscapes / f'gtFine/cityscapes_panoptic_val/{STEM}_gtFine_panoptic.png'
    path = cityscapes / 'gtFine/cityscapes_panoptic_val.json'
    good = png.read_bytes()
    for change, words in (
        (lambda: png.unlink(), 'no such file'),
        (lambda: png.write_bytes(good[:80]), 'readable PNG'),
        (lambda: Image.fromarray(np.zeros((4, 4), np.uint8)).save(png), r'\(4, 4\)'),
    ):
        dataset = DATASETS.build(of_cityscapes(cityscapes))
        change()
        with pytest.raises(UserError, match=words) as error:
            dataset[0]
        assert str(png) in str(error.value)
        png.write_bytes(good)
    for content, words in (
        (None, 'no such file'),
        ('{', 'cannot be read'),
        ('[]', 'COCO panoptic format'),
        (
            json.dumps(dict(images=[], annotations=[dict(image_id=1)], categories=[])),
            'segments_info',
        ),
        (json.dumps({**json.loads(path.read_text()), 'annotations': []}), 'annotation of every'),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=words) as error:
            DATASETS.build(of_cityscapes(cityscapes))
        assert str(path) in str(error.value)
        if content is None:
            write_json(path, [])


SAMPLE = Path(os.environ.get('MMPROMPT_DATA', ''), 'coco_panoptic_sample', 'sample_data')


@pytest.mark.skipif(
    not (os.environ.get('MMPROMPT_DATA') and SAMPLE.is_dir()),
    reason='MMPROMPT_DATA names no coco_panoptic_sample',
)
def test_the_sample_of_coco():
    """Against the same segments as RLE, and against its format of two channels."""
    from pycocotools import mask as coco_mask

    init_default_scope('mmprompt')
    dataset = CocoPanopticSegDataset(
        'panoptic_examples.json',
        dict(img_path='input_images', seg_map_path='panoptic_examples'),
        data_root=str(SAMPLE),
        pipeline=PIPELINE,
    )
    assert len(dataset) == 2 and len(dataset.metainfo['classes']) == 133
    category = {c: i for i, c in enumerate(c['id'] for c in dataset._categories)}
    rle = json.loads((SAMPLE / 'panoptic_coco_detection_format.json').read_text())['annotations']
    for i in range(2):
        info, sample = dataset.get_data_info(i), dataset[i]['data_samples']
        ids, segments = sample.gt_panoptic_seg.data[0].numpy(), sample.gt_segments
        own = [a for a in rle if a['image_id'] == info['img_id']]
        assert len(own) == len(segments.ids)
        wanted = [(category[a['category_id']], a['iscrowd'], a['segmentation']) for a in own]
        wanted = {(c, bool(w), coco_mask.decode(code).tobytes()) for c, w, code in wanted}
        masks = [(ids == s).astype(np.uint8).tobytes() for s in segments.ids.numpy()]
        assert set(zip(segments.labels.tolist(), segments.is_crowd.tolist(), masks)) == wanted
        name = Path(info['seg_map_path']).name
        two = np.array(Image.open(SAMPLE / 'panoptic_examples_2ch_format' / name))
        by_category = np.full(256, 255)  # in which 0 is void
        by_category[list(category)] = list(category.values())
        assert np.array_equal(sample.gt_sem_seg.data[0], by_category[two[..., 0]])


def test_colours_are_read_as_the_format_says():
    assert rgb_to_ids(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[1 + 2 * 256 + 3 * 256**2]]
