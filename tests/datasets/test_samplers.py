import itertools
import pickle
import random

import numpy as np
import torch

from mmprompt.common.seeding import SampleIndex, seeded
from mmprompt.datasets.samplers import ResumableSampler


def take(sampler, number):
    return list(itertools.islice(sampler, number))


def test_endless_passes_and_skipping():
    whole = take(ResumableSampler(range(7), seed=3), 30)
    for epoch in range(4):
        assert sorted(whole[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert [i.number for i in whole] == list(range(30))
    assert whole[:7] != whole[7:14]
    sampler = ResumableSampler(range(7), seed=3)
    sampler.skip(11)
    rest = take(sampler, 19)
    assert rest == whole[11:] and [i.number for i in rest] == list(range(11, 30))
    assert take(ResumableSampler(range(7), seed=4), 30) != whole
    assert take(ResumableSampler(range(3), shuffle=False), 5) == [0, 1, 2, 0, 1]
    # Written down: a change of these changes what every seed trains on.
    assert take(ResumableSampler(range(7), seed=0), 7) == [3, 2, 1, 6, 0, 4, 5]


def test_processes_share_the_order(monkeypatch):
    whole = take(ResumableSampler(range(5), seed=1), 20)
    for rank in range(2):
        name = 'mmprompt.datasets.samplers.get_dist_info'
        monkeypatch.setattr(name, lambda rank=rank: (rank, 2))
        sampler = ResumableSampler(range(5), seed=1)
        assert take(sampler, 10) == whole[rank::2]
        sampler.skip(3)
        rest = take(sampler, 4)
        assert rest == whole[rank::2][3:7]
        assert [i.number for i in rest] == list(range(20))[rank::2][3:7]


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeded_repeats_and_restores():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    results = []
    for index in (SampleIndex(2, 9, 5), SampleIndex(0, 9, 5), SampleIndex(2, 10, 5)):
        with seeded(index):
            results.append(draws())
    assert results[0] == results[1] != results[2]
    assert draws() == expected
    with seeded(3):
        plain = draws()
    assert plain not in results


def test_an_index_travels():
    index = pickle.loads(pickle.dumps(SampleIndex(2, 9, 5)))
    assert index == 2 and (index.number, index.seed) == (9, 5) and [4, 5, 6][index] == 6
