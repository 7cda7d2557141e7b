"""PQ against a twin with sets of pixels, on random maps and on cases worked out by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_panoptic import CocoPanopticSegDataset
from mmprompt.evaluation import panoptic_quality as pq
from mmprompt.registry import METRICS

CLASSES = ('road', 'sky', 'car', 'person')
THINGS = (2, 3)


def _pixels(segment_map, value):
    return {tuple(p) for p in np.argwhere(segment_map == value)}


def _slow(images, num_classes):
    """The algorithm in words: sets of pixels, one pair of segments after the other."""
    tp, fp, fn = (np.zeros(num_classes) for _ in range(3))
    iou_sum = np.zeros(num_classes)
    for gt_map, gt, pred_map, pred in images:
        listed = set().union(*(_pixels(gt_map, g) for g, _, _ in gt))
        void = {tuple(p) for p in np.ndindex(*gt_map.shape)} - listed
        matched_gt, matched_pred = set(), set()
        for g, g_label, crowd in gt:
            for p, p_label in pred:
                a, b = _pixels(gt_map, g), _pixels(pred_map, p)
                if crowd or g_label != p_label or not a & b:
                    continue
                iou = len(a & b) / len(a | (b - void))
                if iou > 0.5:
                    tp[g_label] += 1
                    iou_sum[g_label] += iou
                    matched_gt.add(g)
                    matched_pred.add(p)
        crowds = {}
        for g, g_label, crowd in gt:
            if crowd:
                crowds[g_label] = g
            elif g not in matched_gt:
                fn[g_label] += 1
        for p, p_label in pred:
            if p in matched_pred:
                continue
            b = _pixels(pred_map, p)
            excused = len(b & void)
            if p_label in crowds:
                excused += len(b & _pixels(gt_map, crowds[p_label]))
            if excused / len(b) <= 0.5:
                fp[p_label] += 1
    rows = []
    for c in range(num_classes):
        weight = tp[c] + 0.5 * fp[c] + 0.5 * fn[c]
        if weight > 0:
            sq = iou_sum[c] / tp[c] if tp[c] else 0.0
            rows.append((c, iou_sum[c] / weight, sq, tp[c] / weight))
    return rows


def _slow_means(rows, classes):
    """PQ, SQ and RQ of some classes in percent, added one class after the other."""
    rows = [row for row in rows if row[0] in classes]
    means = []
    for column in (1, 2, 3):
        total = 0.0
        for row in rows:
            total += row[column]
        means.append(100 * (total / len(rows)) if rows else float('nan'))
    return means


def _random_image(rng):
    """Blocky maps that often agree, with void, crowds, and unlabelled predicted pixels."""
    blocks = rng.integers(0, 7, (4, 5))
    gt_map = np.kron(blocks, np.ones((3, 3), int))
    gt = [(int(g), int(rng.integers(4)), False) for g in np.unique(gt_map) if g != 0]
    gt = [(g, c, bool(c >= 2 and rng.random() < 0.4)) for g, c, _ in gt]
    if len(gt) > 2 and rng.random() < 0.5:
        gt = gt[1:]  # an id on the map that is not listed is void
    pred_map = gt_map + 10
    flips = rng.random(gt_map.shape) < rng.uniform(0, 0.5)
    pred_map[flips] = rng.integers(10, 17, flips.sum())
    pred_map[pred_map == 10] = 0
    truth = {g + 10: c for g, c, _ in gt}
    pred = [
        (int(p), truth[p] if p in truth and rng.random() < 0.8 else int(rng.integers(4)))
        for p in np.unique(pred_map) if p != 0
    ]  # fmt: skip
    return gt_map, gt, pred_map, pred


def _count(gt_map, gt, pred_map, pred):
    return pq.count_image(
        gt_map,
        np.array([g for g, _, _ in gt], dtype=int),
        np.array([c for _, c, _ in gt], dtype=int),
        np.array([w for _, _, w in gt], dtype=bool),
        pred_map,
        np.array([p for p, _ in pred], dtype=int),
        np.array([c for _, c in pred], dtype=int),
        num_classes=4,
    )


@pytest.mark.parametrize('seed', range(30))
def test_equals_the_slow_twin(seed):
    rng = np.random.default_rng(seed)
    images = [_random_image(rng) for _ in range(4)]
    found = pq.summarise([_count(*image) for image in images], 4)
    wanted = _slow(images, 4)
    assert np.flatnonzero(found['occurs']).tolist() == [row[0] for row in wanted]
    for c, *values in wanted:
        assert [found[k][c] for k in ('pq', 'sq', 'rq')] == values


@pytest.mark.parametrize('seed', range(10))
def test_the_metric_equals_the_slow_twin_to_the_last_digit(seed):
    rng = np.random.default_rng(100 + seed)
    images = [_random_image(rng) for _ in range(7)]
    metric = pq.PanopticQuality(thing_classes=[CLASSES[i] for i in THINGS], classwise=False)
    metric.dataset_meta = dict(classes=CLASSES)
    for gt_map, gt, pred_map, pred in images:
        # The order of the lists must not matter, but for that of several crowds of a class.
        pred = [pred[i] for i in rng.permutation(len(pred))]
        metric.process({}, [_sample(gt_map, gt, pred_map, pred).to_dict()])
    found = metric.evaluate(len(images))
    rows = _slow(images, 4)
    for suffix, classes in (('', range(4)), ('_th', THINGS), ('_st', (0, 1))):
        wanted = _slow_means(rows, classes)
        values = [found[f'{key}{suffix}'] for key in ('PQ', 'SQ', 'RQ')]
        assert np.array_equal(values, wanted, equal_nan=True), suffix


def test_many_classes_are_added_one_after_the_other():
    """numpy adds more than eight numbers in pairs, which differs in the last digit."""
    counts, rng = [], np.random.default_rng(0)
    for c in range(40):
        none = np.zeros(40, int)
        counts.append(pq.PanopticCounts(np.array([c]), rng.uniform(0.5, 1, 1), none, none))
    metric = pq.PanopticQuality(thing_classes=(), classwise=False)
    metric.dataset_meta = dict(classes=[str(c) for c in range(40)])
    total = 0.0
    for row in counts:
        total += row.ious[0]
    assert metric.compute_metrics(counts)['PQ'] == 100 * (total / 40)


SAMPLE = Path(os.environ.get('MMPROMPT_DATA', ''), 'coco_panoptic_sample', 'sample_data')


@pytest.mark.skipif(
    not (os.environ.get('MMPROMPT_DATA') and SAMPLE.is_dir()),
    reason='MMPROMPT_DATA names no coco_panoptic_sample',
)
@pytest.mark.parametrize('shift', [0, 1, 3])
def test_real_segments_against_the_slow_twin(shift):
    """Two annotated photographs, every eighth pixel of them; the prediction is the truth, moved."""
    init_default_scope('mmprompt')
    dataset = CocoPanopticSegDataset(
        'panoptic_examples.json',
        dict(img_path='input_images', seg_map_path='panoptic_examples'),
        data_root=str(SAMPLE),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotationsFromCocoPanoptic'),
            dict(type='PackPanopticInputs'),
        ],
    )
    images, metric = [], pq.PanopticQuality(classwise=False)
    metric.dataset_meta = dataset.metainfo
    for packed in dataset:
        gt_map = packed['data_samples'].gt_panoptic_seg.data[0, ::8, ::8].numpy()
        segments = packed['data_samples'].gt_segments
        columns = (segments.ids.tolist(), segments.labels.tolist(), segments.is_crowd.tolist())
        gt = [row for row in zip(*columns) if (gt_map == row[0]).any()]
        pred_map = np.roll(gt_map, shift, axis=1)
        images.append((gt_map, gt, pred_map, [row[:2] for row in gt]))
        assert any(crowd for _, _, crowd in gt)
        metric.process({}, [_sample(*images[-1]).to_dict()])
    found, rows = metric.evaluate(2), _slow(images, 133)
    for suffix, classes in (('', range(133)), ('_th', range(80)), ('_st', range(80, 133))):
        wanted = _slow_means(rows, classes)
        assert [found[f'{key}{suffix}'] for key in ('PQ', 'SQ', 'RQ')] == wanted
    assert found['PQ'] == 100 if shift == 0 else 0 < found['PQ'] < 100


def test_exactly_half_is_no_match():
    gt = np.array([[1, 1, 1, 0]])
    found = _count(gt, [(1, 2, False)], np.array([[0, 5, 5, 5]]), [(5, 2)])
    assert found.ious.tolist() == pytest.approx([2 / 3])  # the void pixel leaves the union
    found = _count(np.array([[1, 1, 2, 2]]), [(1, 2, False), (2, 0, False)],
                   np.array([[5, 0, 0, 0]]), [(5, 2)])  # fmt: skip
    assert len(found.ious) == 0  # IoU is 1/2
    assert found.false_positives.tolist() == [0, 0, 1, 0]
    assert found.false_negatives.tolist() == [1, 0, 1, 0]


def test_void_and_crowd_excuse_a_prediction_only_beyond_half():
    for inside, excused in ((2, False), (3, True)):
        for gt in ([], [(7, 2, True)], [(7, 3, True)]):
            gt_map = np.full((1, 8), 1)
            gt_map[0, :inside] = 7
            listed = [(1, 0, False), *gt]
            pred = np.array([[5, 5, 5, 5, 0, 0, 0, 0]])
            found = _count(gt_map, listed, pred, [(5, 2)])
            other_class = gt == [(7, 3, True)]
            assert found.false_positives[2] == (0 if excused and not other_class else 1)
            assert found.false_negatives.sum() == 1  # the road; a crowd is never missed


def test_a_crowd_is_never_matched():
    gt_map = np.full((2, 4), 3)
    found = _count(gt_map, [(3, 2, True)], np.full((2, 4), 9), [(9, 2)])
    assert len(found.ious) == 0
    assert found.false_positives.sum() == 0 and found.false_negatives.sum() == 0


def test_a_predicted_id_that_is_not_listed_is_refused():
    with pytest.raises(ValueError, match=r'\[6\] on the map'):
        _count(np.ones((1, 2), int), [(1, 0, False)], np.array([[5, 6]]), [(5, 0)])
    with pytest.raises(ValueError, match='without a pixel'):
        _count(np.ones((1, 2), int), [(1, 0, False)], np.array([[5, 5]]), [(5, 0), (6, 0)])


def _sample(gt_map, gt, pred_map, pred):
    sample = SegDataSample()
    sample.set_data(
        dict(
            gt_panoptic_seg=PixelData(data=torch.from_numpy(gt_map)[None]),
            gt_segments=InstanceData(
                ids=torch.tensor([g for g, _, _ in gt]),
                labels=torch.tensor([c for _, c, _ in gt]),
                is_crowd=torch.tensor([w for _, _, w in gt]),
            ),
            pred_panoptic_seg=PixelData(data=torch.from_numpy(pred_map)[None]),
            pred_segments=InstanceData(
                ids=torch.tensor([p for p, _ in pred]), labels=torch.tensor([c for _, c in pred])
            ),
        )
    )
    return sample


@pytest.mark.parametrize('prefix', ['', 'mmprompt.'])
def test_the_metric_averages_things_and_stuff_apart(prefix):
    gt_map = np.array([[1, 1, 2, 2], [3, 3, 3, 3]])
    gt = [(1, 2, False), (2, 2, False), (3, 0, False)]
    pred_map = np.array([[1, 1, 0, 0], [3, 3, 3, 2]])
    pred = [(1, 2), (2, 3), (3, 0)]
    metric = METRICS.build(dict(type=f'{prefix}PanopticQuality', thing_classes=THINGS))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [_sample(gt_map, gt, pred_map, pred).to_dict()])
    found = metric.evaluate(1)
    # car: 1 hit of IoU 1, 1 miss; person: 1 false alarm; road: IoU 3/4; sky: nowhere
    assert found['PQ_th'] == pytest.approx(100 * (1 / 1.5 + 0) / 2)
    assert found['PQ_st'] == pytest.approx(75)
    assert found['PQ'] == pytest.approx(100 * (1 / 1.5 + 0 + 0.75) / 3)
    assert found['SQ'] == pytest.approx(100 * (1 + 0 + 0.75) / 3)
    assert found['RQ_st'] == pytest.approx(100)


def test_a_sample_without_panoptic_results_is_named():
    metric = pq.PanopticQuality(thing_classes=THINGS)
    metric.dataset_meta = dict(classes=CLASSES)
    with pytest.raises(UserError, match='pred_panoptic_seg'):
        metric.process({}, [dict(gt_panoptic_seg=1, gt_segments=1)])
