"""Dice of the foreground against counting pixels one by one, and against MMSegmentation's."""

import math

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmprompt.common.errors import UserError
from mmprompt.evaluation import ForegroundDice

CLASSES = ('background', 'vessel')


def pairs(count: int = 4, classes: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth, prediction) of several sizes and densities, some pixels of the truth ignored."""
    random = np.random.default_rng(0)
    made = []
    for n in range(count):
        size = (7 + n, 9)
        truth = (random.random(size) < 0.1 * (n + 1)).astype(np.uint8) * (classes - 1)
        found = np.where(random.random(size) < 0.2, random.integers(0, classes, size), truth)
        truth[0, : n + 2] = 255
        made.append((truth, found.astype(np.int64)))
    return made


def samples(made, convert=torch.from_numpy) -> list[dict]:
    return [
        dict(
            img_path=f'{n}.png',
            pred_sem_seg=dict(data=convert(found[None])),
            gt_sem_seg=dict(data=convert(truth[None])),
        )
        for n, (truth, found) in enumerate(made)
    ]


def measure(given: list[dict], classes=CLASSES, **kwargs) -> dict[str, float]:
    metric = ForegroundDice(**kwargs)
    metric.dataset_meta = dict(classes=classes)
    for sample in given:
        metric.process({}, [sample])
    return metric.evaluate(len(given))


def count(truth: np.ndarray, found: np.ndarray, label: int) -> tuple[int, int]:
    """Twice the common pixels, and those of both, by looking at each pixel."""
    twice = both = 0
    for t, f in zip(truth.ravel().tolist(), found.ravel().tolist()):
        if t != 255:
            twice += 2 * (t == f == label)
            both += (t == label) + (f == label)
    return twice, both


@pytest.mark.parametrize('label', [0, 1])
@pytest.mark.parametrize('convert', [torch.from_numpy, np.asarray])
def test_both_values_are_those_of_counting(label, convert):
    made = pairs()
    counts = [count(*pair, label) for pair in made]
    found = measure(samples(made, convert), foreground=label)
    whole = 100 * sum(t for t, _ in counts) / sum(b for _, b in counts)
    single = 100 * sum(t / b for t, b in counts) / len(counts)
    assert found == {
        'Dice': pytest.approx(whole, abs=0.005),
        'Dice_mean_of_images': pytest.approx(single, abs=0.005),
    }
    assert abs(whole - single) > 0.01, 'the two ways differ here'


def test_the_mean_over_classes_is_that_of_mmseg():
    made = pairs(classes=3)
    theirs = IoUMetric(iou_metrics=['mDice'])
    theirs.dataset_meta = dict(classes=('a', 'b', 'c'))
    theirs.process({}, samples(made))
    ours = [measure(samples(made), ('a', 'b', 'c'), foreground=n)['Dice'] for n in range(3)]
    assert theirs.evaluate(len(made))['mDice'] == pytest.approx(np.mean(ours), abs=0.011)


def test_the_ignored_label_is_a_choice():
    made = [(np.where(truth == 255, 7, truth), found) for truth, found in pairs()]
    assert measure(samples(made), ignore_index=7) == measure(samples(pairs()))


def test_an_image_without_foreground_has_no_value_of_its_own():
    empty = np.zeros((4, 4), np.uint8)
    some = pairs(1)[0]
    only = measure(samples([(empty, empty)]))
    assert all(math.isnan(value) for value in only.values())
    assert measure(samples([some, (empty, empty)])) == measure(samples([some]))
    wrong = measure(samples([some, (empty, empty + 1)]))
    alone = measure(samples([some]))
    assert wrong['Dice_mean_of_images'] == pytest.approx(alone['Dice_mean_of_images'] / 2, abs=0.01)
    assert wrong['Dice'] < alone['Dice']


def test_what_cannot_be_measured_is_said():
    truth, found = pairs(1)[0]
    with pytest.raises(UserError, match=r'0\.png.*one size, found \(7, 8\) and \(7, 9\)'):
        measure(samples([(truth, found[:, 1:])]))
    with pytest.raises(UserError, match='expected gt_sem_seg in the sample of 0.png'):
        measure([dict(samples([(truth, found)])[0], gt_sem_seg=None)])
    with pytest.raises(UserError, match=r'foreground: .*2 classes \(background, vessel\), found 2'):
        measure(samples([(truth, found)]), foreground=2)
