"""AP against closed forms: cases small enough that the precision curve is known."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.errors import UserError
from mmprompt.common.results import mask_boxes, to_det_sample
from mmprompt.evaluation.instance_ap import InstanceAP, encode_masks


def _boxes(*corners, size=(40, 60)):
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners):
        mask[top:bottom, left:right] = True
    return masks


def _evaluate(found, truth=None, panoptic=None, classes=('car', 'person')):
    sample = SegDataSample()
    masks, labels, scores = found
    data = dict(
        pred_instances=InstanceData(
            masks=masks, labels=torch.tensor(labels), scores=torch.tensor(scores)
        )
    )
    if truth is not None:
        data['gt_instances'] = InstanceData(masks=truth[0], labels=torch.tensor(truth[1]))
    if panoptic is not None:
        data.update(panoptic)
    sample.set_data(data)
    metric = InstanceAP()
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, [sample.to_dict()])
    return metric.evaluate(1)


def test_codes_hold_the_masks():
    from pycocotools import mask as coco_mask

    masks = _boxes((0, 0, 3, 5), (10, 10, 40, 60)).numpy()
    decoded = coco_mask.decode(encode_masks(masks)).transpose(2, 0, 1)
    assert np.array_equal(decoded.astype(bool), masks)
    assert encode_masks(masks[:0]) == []


def test_perfect_predictions_score_one_hundred():
    masks = _boxes((0, 0, 20, 20), (20, 20, 40, 60))
    found = _evaluate((masks, [0, 1], [0.9, 0.8]), (masks, [0, 1]))
    assert found['AP'] == pytest.approx(100) and found['AP75'] == pytest.approx(100)


def test_overlap_decides_at_which_thresholds_it_counts():
    truth = _boxes((0, 0, 20, 20))
    found = _evaluate((_boxes((0, 0, 20, 13)), [0], [0.9]), (truth, [0]))  # IoU 0.65
    assert found['AP50'] == pytest.approx(100) and found['AP75'] == 0
    assert found['AP'] == pytest.approx(100 * 4 / 10)  # 0.50, 0.55, 0.60, 0.65


def test_a_false_alarm_above_a_hit_halves_the_precision():
    truth = _boxes((0, 0, 20, 20))
    both = _boxes((20, 40, 40, 60), (0, 0, 20, 20))
    assert _evaluate((both, [0, 0], [0.9, 0.8]), (truth, [0]))['AP'] == pytest.approx(50)
    assert _evaluate((both, [0, 0], [0.8, 0.9]), (truth, [0]))['AP'] == pytest.approx(100)


def test_truth_from_a_panoptic_map_skips_stuff_and_excuses_crowds():
    ids = torch.zeros(1, 40, 60, dtype=torch.long)
    ids[0, :20, :20], ids[0, 20:, :20], ids[0, :, 40:] = 1001, 1000, 2000
    segments = InstanceData(
        ids=torch.tensor([1000, 1001, 2000]),
        labels=torch.tensor([0, 0, 1]),
        is_thing=torch.tensor([True, True, False]),
        is_crowd=torch.tensor([True, False, False]),
    )
    panoptic = dict(gt_panoptic_seg=PixelData(data=ids), gt_segments=segments)
    masks = _boxes((20, 0, 40, 20), (0, 0, 20, 20))  # on the crowd first, then the hit
    found = _evaluate((masks, [0, 0], [0.9, 0.8]), panoptic=panoptic)
    assert found['AP'] == pytest.approx(100)


def test_nothing_found_and_nothing_there():
    none = (_boxes(), torch.zeros(0).long().tolist(), [])
    assert _evaluate(none, (_boxes((0, 0, 5, 5)), [0]))['AP'] == 0
    assert np.isnan(_evaluate((_boxes((0, 0, 5, 5)), [0], [0.5]), (_boxes(), []))['AP'])


@pytest.mark.parametrize('seed', range(3))
def test_equals_the_metric_of_mmdetection(seed, tmp_path):
    """On random rectangles, crowds among them."""
    from mmdet.evaluation import CocoMetric

    rng = np.random.default_rng(seed)
    classes = ('car', 'person', 'bus')
    ours, theirs = InstanceAP(classwise=False), CocoMetric(metric='segm')
    for metric in (ours, theirs):
        metric.dataset_meta = dict(classes=classes)
    for image in range(6):
        corners = rng.integers(0, 25, (8, 2))
        boxes = np.concatenate([corners, corners + rng.integers(5, 16, (8, 2))], axis=1)
        truth = _boxes(*boxes)
        labels, crowd = rng.integers(0, 3, 8), rng.random(8) < 0.2
        meant = rng.integers(0, 8, 20)
        found = _boxes(*(boxes[meant] + rng.integers(-1, 2, (20, 4))).clip(0))
        pred = InstanceData(
            masks=found,
            bboxes=mask_boxes(found),
            labels=torch.from_numpy(np.where(rng.random(20) < 0.8, labels[meant], 0)),
            scores=torch.from_numpy(rng.random(20)),
        )
        sample = SegDataSample(
            metainfo=dict(
                img_id=image,
                ori_shape=(40, 60),
                instances=[
                    dict(
                        bbox=box,
                        bbox_label=int(label),
                        ignore_flag=int(group),
                        mask=dict(code),
                    )
                    for box, code, label, group in zip(
                        mask_boxes(truth).tolist(), encode_masks(truth.numpy()), labels, crowd
                    )
                ],
            )
        )
        gt = InstanceData(masks=truth, labels=torch.from_numpy(labels))
        gt.is_crowd = torch.from_numpy(crowd)
        sample.set_data(dict(pred_instances=pred, gt_instances=gt))
        ours.process({}, [sample.to_dict()])
        theirs.process({}, [to_det_sample(sample).to_dict()])
    found, wanted = ours.evaluate(6), theirs.evaluate(6)
    assert 10 < found['AP'] < 90
    for key, name in (('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75')):
        # That metric rounds to three digits.
        assert found[key] / 100 == pytest.approx(wanted[f'coco/segm_{name}'], abs=5.01e-4)


def test_a_sample_without_instances_is_named():
    with pytest.raises(UserError, match='pred_instances'):
        InstanceAP().process({}, [dict(gt_instances=1)])


def _box_metric(found, truth):
    """Metrics of one sample whose fields are given."""
    sample = SegDataSample()
    sample.set_data(dict(pred_instances=found, gt_instances=truth))
    metric = InstanceAP(boxes=True)
    metric.dataset_meta = dict(classes=('car', 'person'))
    metric.process({}, [sample.to_dict()])
    return metric.evaluate(1)


def test_boxes_are_those_given_or_else_tight_ones():
    full = _boxes((0, 0, 20, 20))
    cross = full.clone()
    cross[0, :8, 8:] = cross[0, 8:, :8] = False  # half of the mask and all of the box are left
    labels, scores = torch.tensor([0]), torch.tensor([0.9])
    truth = InstanceData(masks=full, labels=labels)
    found = InstanceData(masks=cross, labels=labels, scores=scores)
    measured = _box_metric(found, truth)
    assert measured['AP_det'] == pytest.approx(100) == measured['AP75_det']
    assert measured['AP50'] == pytest.approx(100) and measured['AP75'] == 0
    found.bboxes = torch.tensor([[0.0, 0.0, 13.0, 20.0]])  # IoU 0.65 with the tight one
    assert _box_metric(found, truth)['AP_det'] == pytest.approx(100 * 4 / 10)
    truth.bboxes = torch.tensor([[0.0, 0.0, 13.0, 20.0]])
    measured = _box_metric(found, truth)
    assert measured['AP_det'] == pytest.approx(100) and measured['AP75'] == 0
    assert 'AP_det' not in _evaluate((cross, [0], [0.9]), (full, [0]))


def test_random_boxes_measure_as_in_mmdetection():
    det = pytest.importorskip('mmdet.evaluation')
    samples = pytest.importorskip('mmdet.structures')
    metric, other = InstanceAP(boxes=True, classwise=False), det.CocoMetric(metric=['bbox', 'segm'])
    meta = dict(classes=('car', 'person'))
    metric.dataset_meta = other.dataset_meta = meta
    draw = torch.Generator().manual_seed(0)
    for i in range(8):
        corners = torch.randint(0, 30, (9, 4), generator=draw)
        corners[:, 2:] += corners[:, :2] + 3
        masks = _boxes(*corners.tolist(), size=(70, 70))
        labels = torch.randint(0, 2, (9,), generator=draw)
        scores = torch.rand(5, generator=draw)
        moved = masks[:5].roll(1, dims=2)
        truth = InstanceData(masks=masks[3:], labels=labels[3:], bboxes=mask_boxes(masks[3:]))
        found = InstanceData(
            masks=moved, labels=labels[:5], scores=scores, bboxes=mask_boxes(moved) + 0.5
        )
        sample = samples.DetDataSample(metainfo=dict(img_id=i, ori_shape=(70, 70)))
        sample.set_data(dict(pred_instances=found, gt_instances=truth))
        data = sample.to_dict()
        metric.process({}, [data])
        data['instances'] = [
            dict(bbox=box, mask=code, bbox_label=label, ignore_flag=0)
            for box, code, label in zip(
                truth.bboxes.tolist(), encode_masks(truth.masks.numpy()), truth.labels.tolist()
            )
        ]
        other.process({}, [data])
    ours, theirs = metric.evaluate(8), other.evaluate(8)
    assert 5 < ours['AP_det'] < 95 and 5 < ours['AP'] < 95
    for mine, name in (('AP_det', 'bbox_mAP'), ('AP75_det', 'bbox_mAP_75'), ('AP', 'segm_mAP')):
        assert ours[mine] == pytest.approx(100 * theirs[f'coco/{name}'], abs=0.051)
