"""A sampler that can start anywhere in its endless order."""

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mmprompt.common.seeding import SampleIndex
from mmprompt.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """Endless passes over a dataset; the order of pass e depends on (seed, e) alone.

    Every index is a `SampleIndex` that carries its global number, from which `GuardedDataset` and
    `FewShotDataset` seed the random transforms. A resumed run therefore sees the same views.

    Args:
        dataset: what to draw from; only its length is used.
        shuffle: another order in each pass, or the dataset's own.
        seed: the seed of the order; the Runner gives its own.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = 0 if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self._skipped = 0

    def __len__(self) -> int:
        """The number of samples of one pass."""
        return self.size

    def __iter__(self) -> Iterator[SampleIndex]:
        number = self.rank + self._skipped * self.world_size
        order, at = None, -1
        while True:
            epoch, place = divmod(number, self.size)
            if epoch != at:
                order, at = self._order(epoch), epoch
            yield SampleIndex(int(order[place]), number, self.seed)
            number += self.world_size

    def skip(self, num_samples: int) -> None:
        """Start after the first ``num_samples`` samples of this process; mmengine calls it."""
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Nothing to do: passes are counted here."""

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.size)
        # Sorting raw 64-bit words: unlike Generator.permutation it is the same in every numpy.
        words = np.random.PCG64([self.seed, epoch]).random_raw(self.size)
        return np.argsort(words, kind='stable')
