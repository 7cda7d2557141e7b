"""COCO instances: masks that overlap, what is painted of them, and the units that come of them."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from pycocotools import mask as coco

from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.few_shot import load_label
from mmprompt.evaluation import InstanceAP, PanopticQuality
from mmprompt.registry import DATASETS

SIZE = (40, 60)
NAMES = ('cat', 'dog', 'cup')
#: (category, crowd, x1, y1, x2, y2); the second cat covers part of the first and all of the cup.
OBJECTS = [
    (0, 0, 4, 4, 34, 34),
    (1, 0, 20, 10, 50, 30),
    (0, 0, 24, 12, 40, 26),
    (2, 0, 26, 14, 30, 18),
    (1, 1, 0, 30, 60, 40),
]


def masks_of(objects=OBJECTS) -> np.ndarray:
    masks = np.zeros((len(objects), *SIZE), bool)
    for mask, (_, _, x1, y1, x2, y2) in zip(masks, objects):
        mask[y1:y2, x1:x2] = True
    return masks


def segmentation(mask: np.ndarray, kind: int, box: tuple) -> object:
    """A polygon, plain run lengths or compressed ones."""
    x1, y1, x2, y2 = box
    if kind == 0:
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if kind == 1:
        return dict(size=list(SIZE), counts=code['counts'].decode())
    column = mask.T.ravel()
    edges = np.flatnonzero(np.diff(column, prepend=False)).tolist() + [column.size]
    return dict(size=list(SIZE), counts=np.diff(edges, prepend=0).tolist())


@pytest.fixture
def data(tmp_path):
    """A folder with two images, the second without objects, and patches of the first."""
    (tmp_path / 'images').mkdir()
    random = np.random.default_rng(0)
    for name in ('a', 'b'):
        pixels = random.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{name}.png')
    masks = masks_of()
    annotations = [
        dict(
            id=i + 1,
            image_id=7,
            category_id=10 * (label + 1),
            iscrowd=crowd,
            segmentation=segmentation(mask, i % 3, box),
            bbox=[box[0] + 0.25, box[1], box[2] - box[0], box[3] - box[1]],
        )
        for i, ((label, crowd, *box), mask) in enumerate(zip(OBJECTS, masks))
    ]
    content = dict(
        images=[
            dict(id=7, file_name='a.png', height=SIZE[0], width=SIZE[1]),
            dict(id=8, file_name='b.png'),
        ],
        annotations=annotations,
        categories=[dict(id=10 * (i + 1), name=name) for i, name in enumerate(NAMES)],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    patches = random.random((9, *SIZE)) > 0.5
    patches[3:6] = masks[:3]
    with PatchStoreWriter(tmp_path / 'p.db', dict(generator='toy', settings={})) as writer:
        writer.add('a.png', PatchSet.from_masks(patches))
        writer.add('b.png', PatchSet.from_masks(patches[:2]))
        writer.finish()
    return tmp_path


def config(data, *geometry, **changes) -> dict:
    return dict(
        type='CocoInstanceSegDataset',
        data_root=str(data),
        serialize_data=False,
        ann_file='a.json',
        data_prefix=dict(img_path='images'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadPatches', store=str(data / 'p.db')),
            dict(type='LoadAnnotationsFromCocoInstances'),
            dict(type='LoadUnits'),
            *geometry,
            dict(type='PackPatchInputs'),
        ],
        **changes,
    )


def test_paints_smaller_over_larger_and_crowds_below(data):
    sample = DATASETS.build(config(data))[0]['data_samples']
    expected = np.zeros(SIZE, int)
    for i, number in ((4, 2000), (0, 1001), (1, 2001), (2, 1002), (3, 3001)):
        expected[masks_of()[i]] = number
    np.testing.assert_array_equal(sample.gt_panoptic_seg.data[0], expected)
    labels = np.where(expected, expected // 1000 - 1, 255)
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0], labels)
    instances = sample.gt_instances
    np.testing.assert_array_equal(instances.masks, masks_of())
    assert instances.labels.tolist() == [0, 1, 0, 2, 1]
    assert instances.is_crowd.tolist() == [False] * 4 + [True]
    assert instances.bboxes[1].tolist() == [20.25, 10, 50.25, 30]


@pytest.mark.parametrize('flip', [False, True])
def test_units_are_whole_masks_and_painted_regions(flip, data):
    steps = [dict(type='DetRandomFlip', prob=1.0)] if flip else []
    dataset = DATASETS.build(config(data, *steps))
    sample = dataset[0]['data_samples']
    patches = sample.patch_set.decode().reshape(len(sample.patches), -1).astype(float)
    labels = dataset.metainfo['thing_classes']
    assert labels == NAMES
    units = sample.gt_units
    painted = DATASETS.build(config(data))[0]['data_samples'].gt_sem_seg.data[0].numpy()
    rows = [*masks_of()[:4], *(painted == c for c in range(3))]
    assert units.labels.tolist() == [0, 1, 0, 2, 0, 1, 2]
    assert units.is_instance.tolist() == [True] * 4 + [False] * 3
    for k, mask in enumerate(rows):
        share = patches @ mask.ravel() / patches.sum(1)
        np.testing.assert_allclose(units.mask_iop[k], share, atol=1e-6)
    box = [26, 4, 56, 34] if flip else [4, 4, 34, 34]
    assert units.bboxes[0].tolist() == box


@pytest.mark.parametrize('crop', [False, True])
def test_whole_regions_are_unions_of_masks(crop, data):
    steps = [dict(type='DetRandomCrop', crop_size=(36, 24))] if crop else []
    cfg = config(data, *steps)
    cfg['pipeline'][3] = dict(type='LoadUnits', whole_regions=True)
    dataset, window = DATASETS.build(cfg), np.s_[:, :]
    if crop:
        np.random.seed(0)
        top, left = dataset.pipeline.transforms[4]._rand_offset((SIZE[0] - 24, SIZE[1] - 36))
        window = np.s_[top : top + 24, left : left + 36]
    np.random.seed(0)
    sample = dataset[0]['data_samples']
    shown = np.zeros(SIZE, bool)
    shown[window] = True
    masks = masks_of()
    rows = [*masks[:4], masks[0] | masks[2], masks[1] | masks[4], masks[3]]
    labels = [0, 1, 0, 2, 0, 1, 2]
    kept = [k for k, mask in enumerate(rows) if (mask & shown).any()]
    units, ids = sample.gt_units, sample.patches.ids
    assert units.labels.tolist() == [labels[k] for k in kept]
    assert units.is_instance.tolist() == [k < 4 for k in kept]
    patches = (sample.patch_set.decode()[ids] & shown).reshape(len(ids), -1).astype(float)
    for found, k in zip(units.mask_iop, kept):
        np.testing.assert_allclose(found, patches @ rows[k].ravel() / patches.sum(1), atol=1e-6)
    # The other image has no object, and no unit either.
    assert not len(dataset[1]['data_samples'].gt_units)


def test_a_crop_cuts_overlapping_masks(data):
    crop = dict(type='DetRandomCrop', crop_size=(20, 16))
    dataset = DATASETS.build(config(data, crop))
    np.random.seed(0)
    sample = dataset[0]['data_samples']
    np.random.seed(0)
    top, left = dataset.pipeline.transforms[4]._rand_offset((SIZE[0] - 16, SIZE[1] - 20))
    window = np.s_[top : top + 16, left : left + 20]
    patches = np.stack([m[window] for m in sample.patch_set.decode()])
    patches = patches.reshape(len(patches), -1).astype(float)[sample.patches.ids]
    rows = [m[window] for m in masks_of()[:4] if m[window].any()]
    single = sample.gt_units[sample.gt_units.is_instance]
    assert len(single) == len(rows)
    for k, mask in enumerate(rows):
        share = patches @ mask.ravel() / patches.sum(1)
        np.testing.assert_allclose(single.mask_iop[k], share, atol=1e-6)


def test_an_image_without_objects_passes(data):
    sample = DATASETS.build(config(data))[1]['data_samples']
    assert len(sample.gt_units) == 0 and len(sample.gt_instances) == 0
    assert sample.gt_instances.masks.shape == (0, *SIZE)
    assert sample.gt_units.mask_iop.shape == (0, 2)


def test_perfect_predictions_score_a_hundred(data):
    dataset = DATASETS.build(config(data))
    average, quality = InstanceAP(boxes=True), PanopticQuality()
    for metric in (average, quality):
        metric.dataset_meta = dataset.metainfo
    for i in range(2):
        sample = dataset[i]['data_samples']
        truth, segments = sample.gt_instances, sample.gt_segments
        single = ~truth.is_crowd
        sample.pred_instances = InstanceData(
            masks=truth.masks[single],
            bboxes=truth.bboxes[single],
            labels=truth.labels[single],
            scores=torch.ones(int(single.sum())),
        )
        kept = ~segments.is_crowd
        panoptic = sample.gt_panoptic_seg.data.clone()
        panoptic[~torch.isin(panoptic, segments.ids[kept])] = 0
        sample.pred_panoptic_seg = PixelData(data=panoptic)
        sample.pred_segments = InstanceData(ids=segments.ids[kept], labels=segments.labels[kept])
        for metric in (average, quality):
            metric.process({}, [sample.to_dict()])
    found = average.compute_metrics(average.results)
    assert found['AP'] == pytest.approx(100) and found['AP_det'] == pytest.approx(100)
    assert quality.compute_metrics(quality.results)['PQ'] == pytest.approx(100)


def test_classes_are_chosen_by_name(data):
    dataset = DATASETS.build(config(data, metainfo=dict(classes=('cup', 'cat'))))
    assert dataset.metainfo['classes'] == ('cup', 'cat')
    assert dataset[0]['data_samples'].gt_instances.labels.tolist() == [1, 1, 0]
    with pytest.raises(UserError, match='cow in no category'):
        DATASETS.build(config(data, metainfo=dict(classes=('cow',))))


def test_few_shot_sets_can_be_drawn_of_it(data):
    dataset = DATASETS.build(config(data))
    assert set(np.unique(load_label(dataset, 0))) == {0, 1, 2, 255}


def test_names_what_cannot_be_used(data):
    content = json.loads((data / 'a.json').read_text())
    content['annotations'][0]['segmentation'] = [[1, 2, 3]]
    content['annotations'][1]['segmentation'] = dict(size=[9, 9], counts='0')
    (data / 'a.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'a\.png: an annotation: expected a segmentation'):
        DATASETS.build(config(data))[0]
    (data / 'a.json').write_text('{"images": []}')
    with pytest.raises(UserError, match='COCO format'):
        DATASETS.build(config(data))
    with pytest.raises(UserError, match='no such file'):
        DATASETS.build({**config(data), 'ann_file': 'b.json'})


def test_instances_are_added_to_a_panoptic_data_set(data):
    """What is measured as AP is then the annotation, not what a panoptic map shows of it."""
    base = config(data)
    extra = dict(type='LoadCocoInstances', ann_file=str(data / 'a.json'))
    base['pipeline'][2:3] = [dict(type='LoadAnnotationsFromCocoInstances'), extra]
    plain = DATASETS.build(config(data))[0]['data_samples']
    for classes, labels in ((None, [0, 1, 0, 2, 1]), (('x', 'cup', 'cat', 'dog'), [2, 3, 2, 1, 3])):
        extra['classes'] = classes
        sample = DATASETS.build(base)[0]['data_samples']
        assert torch.equal(sample.gt_instances.masks, plain.gt_instances.masks)
        assert sample.gt_instances.labels.tolist() == labels
    extra['classes'] = ('cat', 'dog')
    with pytest.raises(UserError, match='found cup'):
        DATASETS.build(base)[0]
    content = json.loads((data / 'a.json').read_text())
    content['categories'][0]['name'] = ' cat '  # as some files write it
    (data / 'b.json').write_text(json.dumps(content))
    for classes in (None, (' dog', 'cat', 'cup')):
        extra.update(classes=classes, ann_file=str(data / 'b.json'))
        labels = DATASETS.build(base)[0]['data_samples'].gt_instances.labels.tolist()
        assert labels == ([0, 1, 0, 2, 1] if classes is None else [1, 0, 1, 2, 0])
    extra['classes'] = None
    content['images'] = content['images'][1:]
    (data / 'c.json').write_text(json.dumps(content))
    extra['ann_file'] = str(data / 'c.json')
    with pytest.raises(UserError, match='no such file_name'):
        DATASETS.build(base)[0]
