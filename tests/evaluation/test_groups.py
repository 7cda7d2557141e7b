"""Means of groups of classes, against metrics of those classes alone and against counting."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.errors import UserError
from mmprompt.evaluation import ClassIoU, InstanceAP, PanopticQuality
from mmprompt.evaluation.groups import read_groups
from mmprompt.evaluation.instance_ap import BOX_STATS, STATS

CLASSES = ('car', 'person', 'bus', 'cat', 'dog')
GROUPS = dict(seen=['dog', 'car'], unseen=['person', 'cat'])  # `cat` is nowhere, `bus` in no group
NUMBERS = dict(seen=[0, 4], unseen=[1, 3])


def made(metric, samples, classes=CLASSES):
    metric.dataset_meta = dict(classes=classes)
    for sample in samples:
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(samples))


def instances(seed: int, only=range(5)) -> SegDataSample:
    """Rectangles of all classes but `cat`, found where they are or a little beside."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 25, (9, 2))
    boxes = np.concatenate([corners, corners + random.integers(5, 16, (9, 2))], axis=1)
    labels = np.array([0, 1, 2, 4, 0, 1, 2, 4, 4])
    moved = (boxes + random.integers(-1, 2, boxes.shape)).clip(0)
    scores = random.random(9)
    kept = np.isin(labels, list(only))
    masks = torch.zeros(2, 9, 40, 40, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks.flatten(0, 1), [*boxes, *moved]):
        mask[top:bottom, left:right] = True
    truth, found = masks[:, kept]
    labels = torch.from_numpy(labels[kept])
    sample = SegDataSample()
    sample.gt_instances = InstanceData(masks=truth, labels=labels)
    sample.pred_instances = InstanceData(
        masks=found, labels=labels, scores=torch.from_numpy(scores[kept])
    )
    return sample


def test_ap_of_a_group_is_that_of_its_classes_alone():
    found = made(InstanceAP(boxes=True, groups=GROUPS), [instances(seed) for seed in range(4)])
    plain = made(InstanceAP(boxes=True), [instances(seed) for seed in range(4)])
    assert {key: found[key] for key in plain} == pytest.approx(plain, nan_ok=True)
    for group, numbers in NUMBERS.items():
        alone = made(InstanceAP(boxes=True), [instances(seed, numbers) for seed in range(4)])
        for key in (*STATS, *BOX_STATS):
            assert found[f'{key}_{group}'] == pytest.approx(alone[key], nan_ok=True)
        assert 5 < found[f'AP_{group}'] < 95


def test_nothing_found_is_zero_for_groups_that_are_there():
    sample = instances(0, only=[1, 2])
    sample.pred_instances = sample.pred_instances[:0]
    found = made(InstanceAP(groups=GROUPS), [sample])
    assert found['AP'] == found['AP_unseen'] == 0
    assert np.isnan(found['AP_seen'])


def test_pq_of_a_group_is_the_mean_of_its_classes():
    truth = np.array([[1, 1, 2, 2], [3, 3, 3, 3]])
    answer = np.array([[1, 1, 0, 0], [3, 3, 3, 2]])
    sample = SegDataSample()
    sample.gt_panoptic_seg = PixelData(data=torch.from_numpy(truth)[None])
    sample.gt_segments = InstanceData(
        ids=torch.tensor([1, 2, 3]), labels=torch.tensor([0, 0, 4]), is_crowd=torch.zeros(3)
    )
    sample.pred_panoptic_seg = PixelData(data=torch.from_numpy(answer)[None])
    sample.pred_segments = InstanceData(ids=torch.tensor([1, 2, 3]), labels=torch.tensor([0, 1, 4]))
    found = made(PanopticQuality(thing_classes=(0, 1), groups=GROUPS), [sample])
    # car: a hit of IoU 1 and a miss; person: a false alarm; dog: IoU 3/4
    assert found['PQ_seen'] == pytest.approx(100 * (1 / 1.5 + 0.75) / 2)
    assert found['SQ_seen'] == pytest.approx(100 * (1 + 0.75) / 2)
    assert found['RQ_seen'] == pytest.approx(100 * (1 / 1.5 + 1) / 2)
    assert found['PQ_unseen'] == 0


def test_iou_of_a_group_is_the_mean_of_counting():
    truth = np.array([[0, 0, 0, 1], [4, 4, 255, 1]])
    answer = np.array([[0, 0, 1, 1], [4, 0, 3, 1]])
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(answer)[None])
    found = made(ClassIoU(groups={**GROUPS, 'none': ['cat']}), [sample])
    # car 2 of 4, dog 1 of 2, person 2 of 3
    assert found['mIoU_seen'] == 50
    assert found['mIoU_unseen'] == pytest.approx(200 / 3, abs=0.01)
    assert np.isnan(found['mIoU_none'])


@pytest.mark.parametrize(
    'groups, named',
    [
        (dict(unseen=['cat', 'lion']), ['lion', 'unseen', 'person']),
        (dict(unseen='cat'), ['a list', 'unseen']),
        (dict(th=['cat']), ['another name', "'th'"]),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, named):
    with pytest.raises(UserError) as error:
        read_groups(groups, CLASSES, 'InstanceAP')
    assert all(part in str(error.value) for part in ('InstanceAP.groups', *named))
