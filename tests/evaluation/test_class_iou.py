"""IoU of each class among the metrics, against counting pixels."""

import numpy as np
import pytest
import torch

from mmprompt.evaluation import ClassIoU

CLASSES = ('a', 'b', 'c', 'd')


def test_numbers_of_counting_and_none_for_a_class_that_is_nowhere():
    random = np.random.default_rng(0)
    metric = ClassIoU()
    metric.dataset_meta = dict(classes=CLASSES)
    pairs = [(random.integers(0, 3, (9, 9)), random.integers(0, 3, (9, 9))) for _ in range(4)]
    for truth, _ in pairs:
        truth[0] = 255
    samples = [
        dict(
            pred_sem_seg=dict(data=torch.from_numpy(found[None])),
            gt_sem_seg=dict(data=torch.from_numpy(truth[None])),
        )
        for truth, found in pairs
    ]
    metric.process({}, samples)
    found = metric.evaluate(len(samples))
    truth, answer = (np.stack(maps).ravel() for maps in zip(*pairs))
    truth, answer = truth[truth != 255], answer[truth != 255]
    expected = [
        100 * ((truth == n) & (answer == n)).sum() / ((truth == n) | (answer == n)).sum()
        for n in range(3)
    ]
    assert [found[f'IoU.{name}'] for name in CLASSES[:3]] == pytest.approx(expected, abs=0.006)
    assert found['mIoU'] == pytest.approx(np.mean(expected), abs=0.006)
    assert 'IoU.d' not in found
