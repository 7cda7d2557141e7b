"""AP against closed forms: cases small enough that the precision curve is known."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.errors import UserError
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


def test_a_sample_without_instances_is_named():
    with pytest.raises(UserError, match='pred_instances'):
        InstanceAP().process({}, [dict(gt_instances=1)])
