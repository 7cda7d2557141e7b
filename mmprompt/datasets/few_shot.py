"""A dataset restricted to a few-shot set."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.common.few_shot import Manifest, check_request, choose, dataset_record
from mmprompt.datasets.checks import check_labels, explain_failure
from mmprompt.datasets.guarded import GuardedDataset
from mmprompt.registry import DATASETS


@DATASETS.register_module()
class FewShotDataset(GuardedDataset):
    """The images of a manifest out of any MMSegmentation dataset.

    Give a ``manifest``, which ``tools/make_few_shot_split.py`` makes, or ``k`` and ``seed`` to draw
    the same set here. What `GuardedDataset` does is done here too.

    Args:
        dataset: config of the whole dataset, or a built one.
        manifest: path of the manifest.
        k: images per class.
        seed: of the draws.
        sampling: 'rarest-first' or 'independent'.
        allow_missing: accept classes that no image contains.

    Raises:
        UserError: if the manifest is missing or belongs to another dataset, or a set cannot be
            drawn; and whatever `GuardedDataset` raises.
    """

    def __init__(
        self,
        dataset: Any,
        manifest: str | Path | None = None,
        k: int | None = None,
        seed: int = 0,
        sampling: str = 'rarest-first',
        allow_missing: bool = False,
    ) -> None:
        if (manifest is None) == (k is None):
            raise UserError(
                f'FewShotDataset: expected either manifest or k, found manifest={manifest!r} and '
                f'k={k!r}. Give one of them.'
            )
        # Before the data: a missing manifest should not cost the reading of a large dataset.
        self.manifest = None if manifest is None else Manifest.load(manifest)
        super().__init__(dataset)
        if self.manifest is None:
            self.manifest = make_manifest(self.dataset, k, seed, sampling, allow_missing)
        else:
            check_manifest(self.manifest, self.dataset, str(manifest))
        places = {name: i for i, name in enumerate(image_names(self.dataset))}
        self._indices = [places[name] for name in self.manifest.images]

    def inner_index(self, index: int) -> int:
        return self._indices[index]

    def __len__(self) -> int:
        return len(self._indices)


def image_names(dataset: Any) -> list[str]:
    """Return the name of each image: its path below the image folder, with '/'."""
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path') or ''
    paths = [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]
    root = Path(folder)
    names = [(p.relative_to(root) if root in p.parents else p).as_posix() for p in paths]
    if len(set(names)) != len(names):
        raise UserError(
            f'{folder}: expected image names that differ, found {len(names) - len(set(names))} '
            f'doubled. Rename them.'
        )
    return names


def load_label(dataset: Any, index: int) -> np.ndarray:
    """Load the label map (H, W) of an image as the dataset's own pipeline does, before any change.

    Raises:
        UserError: if there is no label, its file is damaged, or a value is outside the classes.
    """
    info = dataset.get_data_info(index)
    results = dict(info)
    try:
        for step in dataset.pipeline.transforms:
            # Everything up to the step that loads the label; others only see a label they ask for.
            if 'LoadAnnotations' in type(step).__name__:
                results = step(results)
                break
    except Exception as error:
        explained = explain_failure(info)
        if explained is None:
            raise
        raise explained from error
    if 'gt_seg_map' not in results:
        raise UserError(
            f'{info.get("img_path")}: expected a pipeline with a LoadAnnotations step that loads '
            f'the label map, found {[type(s).__name__ for s in dataset.pipeline.transforms]}. Add '
            f'it to the pipeline of the training dataset.'
        )
    label = np.asarray(results['gt_seg_map'])
    ignore = getattr(dataset, 'ignore_index', 255)
    check_labels(label, info, len(dataset.metainfo['classes']), ignore)
    return label


def presence_matrix(dataset: Any, watch: Any = iter) -> np.ndarray:
    """Return (N, C) bool: which image contains which class.

    Args:
        dataset: an MMSegmentation dataset.
        watch: wraps the iteration over the images, to show progress.
    """
    num_classes = len(dataset.metainfo['classes'])
    presence = np.zeros((len(dataset), num_classes), bool)
    indices: Iterable[int] = watch(range(len(dataset)))
    for i in indices:
        values = np.unique(load_label(dataset, i))
        presence[i, values[values < num_classes]] = True
    return presence


def make_manifest(
    dataset: Any,
    k: int,
    seed: int = 0,
    sampling: str = 'rarest-first',
    allow_missing: bool = False,
    watch: Any = iter,
) -> Manifest:
    """Draw a few-shot set of a dataset; see `mmprompt.common.few_shot.choose`."""
    names = image_names(dataset)
    check_request(len(names), k, sampling)
    presence = presence_matrix(dataset, watch)
    classes = dataset.metainfo['classes']
    manifest = choose(names, presence, classes, k, seed, sampling, allow_missing)
    manifest.dataset = _record(manifest, dataset, names)
    return manifest


def check_manifest(manifest: Manifest, dataset: Any, path: str) -> None:
    """Check that a manifest was made for this dataset.

    Raises:
        UserError: naming both sides.
    """
    names, classes = image_names(dataset), list(dataset.metainfo['classes'])
    make = 'Point data_root at the dataset it was made for, or make a manifest for this one.'
    if list(manifest.counts) != classes:
        raise UserError(
            f'{path}: expected a manifest for the classes {classes}, found one for '
            f'{list(manifest.counts)}. {make}'
        )
    lost = sorted(set(manifest.images) - set(names))
    if lost:
        raise UserError(
            f'{path}: expected its {len(manifest.images)} images among the {len(names)} of the '
            f'dataset, found {len(lost)} missing, such as {lost[0]}. {make}'
        )
    found = _record(manifest, dataset, names)
    if found != manifest.dataset:
        wanted = manifest.dataset
        what = [k for k in ('num_images', 'names', 'labels') if wanted.get(k) != found[k]]
        raise UserError(
            f'{path}: expected the dataset with fingerprint {wanted.get("fingerprint")} '
            f'({wanted.get("num_images")} images), found {found["fingerprint"]} '
            f'({found["num_images"]} images); they differ in: {", ".join(what)}. {make}'
        )


def _record(manifest: Manifest, dataset: Any, names: list[str]) -> dict:
    places = {name: i for i, name in enumerate(names)}
    labels = {name: load_label(dataset, places[name]) for name in manifest.images}
    return dataset_record(names, labels)
