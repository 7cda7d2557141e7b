"""Randomness of a sample as a function of (seed, how many samples were drawn before it)."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Keeps the seeds of samples apart from those of training steps (mmprompt.common.hooks).
_SAMPLE_STREAM = 0


class SampleIndex(int):
    """A dataset index that knows which sample of the training it is.

    Args:
        index: the index into the dataset.
        number: the global number of the sample since the start of training, over all processes.
        seed: the seed of the run.
    """

    number: int
    seed: int

    def __new__(cls, index: int, number: int, seed: int) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.number = number
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:  # travels to data workers
        return SampleIndex, (int(self), self.number, self.seed)


@contextmanager
def seeded(index: int) -> Iterator[None]:
    """Seed random, numpy and torch (CPU) inside the block from a `SampleIndex`, then restore them.

    With any other index the block runs as it is. Without the restoring, loading in the main process
    would change what the model draws next, and training with 0 and with 2 workers would differ.
    """
    if not isinstance(index, SampleIndex):
        yield
        return
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = [_SAMPLE_STREAM, index.seed, index.number]
    state = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    # Not torch.manual_seed, which also reaches for the GPU.
    torch.default_generator.manual_seed(int(state[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
