"""A dataset wrapper under which randomness repeats and a bad file is named."""

from typing import Any

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.common.seeding import seeded
from mmprompt.datasets.checks import build_dataset, check_files, check_labels, explain_failure
from mmprompt.registry import DATASETS


@DATASETS.register_module()
class GuardedDataset:
    """Pass a dataset through, with two additions.

    Each sample that a `ResumableSampler` asks for is made with random, numpy and torch seeded from
    (seed, global sample number). And what is wrong with the data is said in a sentence: a missing
    folder, an empty split or an image without label when it is built, a truncated file or a label
    value outside the classes when a sample is made.

    Args:
        dataset: config of the dataset, or a built one.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = build_dataset(dataset)
        self._checked: set[int] = set()

    @property
    def metainfo(self) -> dict:
        """The dataset's classes, palette and so on."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Initialise the dataset if it was built lazily."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def get_data_info(self, index: int) -> dict:
        """Return file names and whatever else is known of a sample."""
        return self.dataset.get_data_info(self.inner_index(index))

    def inner_index(self, index: int) -> int:
        """Translate an index of this dataset into one of the inner dataset."""
        return index

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        inner = self.inner_index(index)
        info = self._info(inner)
        if int(inner) not in self._checked:
            check_files(info)
            self._checked.add(int(inner))
        with seeded(index):
            try:
                sample = self.dataset[inner]
            except UserError:
                raise
            except Exception as error:
                explained = explain_failure(info)
                if explained is None:
                    raise
                raise explained from error
        self._check_sample(sample, info)
        return sample

    def _info(self, inner: int) -> dict:
        get = getattr(self.dataset, 'get_data_info', None)
        return get(inner) if get else {}

    def _check_sample(self, sample: Any, info: dict) -> None:
        data = sample.get('data_samples') if isinstance(sample, dict) else None
        label = getattr(data, 'gt_sem_seg', None)
        classes = self.metainfo.get('classes') if hasattr(self.dataset, 'metainfo') else None
        if label is None or not classes:
            return
        values = np.asarray(label.data)
        ignore = getattr(self.dataset, 'ignore_index', 255)
        check_labels(values, info, len(classes), ignore)
        image = sample.get('inputs')
        # Test pipelines may resize the image alone; then the label is of the size it was loaded in.
        sizes = [tuple(getattr(image, 'shape', ())[-2:]), tuple(data.metainfo.get('ori_shape', ()))]
        if image is not None and values.shape[-2:] not in sizes:
            explained = explain_failure(info)
            if explained is not None:
                raise explained
