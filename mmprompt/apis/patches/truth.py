"""Patches and true units of a config's images, side by side in the frame of the original image."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement

from mmprompt.apis.pipelines import step_name, steps_of
from mmprompt.apis.prepare.class_prior import labelled_images
from mmprompt.common.errors import UserError
from mmprompt.common.patches import PatchSet
from mmprompt.common.rle import Runs, parse
from mmprompt.datasets.checks import build_dataset
from mmprompt.datasets.units import TrueUnits


@dataclass(frozen=True, eq=False)
class TruthImage:
    """One image.

    Attributes:
        path: of the image file.
        patches: those that the config uses, N of them.
        units: K true units.
        runs: of their masks.
        things: classes with instances.
        sample: the packed sample with its truth; None if it was not asked for.
    """

    path: str
    patches: PatchSet
    units: TrueUnits
    runs: Runs
    things: tuple[int, ...]
    sample: BaseDataElement | None

    def patch_runs(self) -> Runs:
        """Runs of the N patches."""
        return parse(self.patches.rles, self.patches.size, f'{self.path}: patch')


def unit_runs(units: TrueUnits) -> Runs:
    """Runs of the masks of K units."""
    segments = units.segments
    first = segments.first()
    unit, segment = np.nonzero(units.members)
    length = first[segment + 1] - first[segment]
    inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    row = np.repeat(first[segment], length) + inside
    owner, start, stop = np.repeat(unit, length), segments.start[row], segments.stop[row]
    if units.masks:
        own = parse(units.masks, segments.size, 'annotation')
        owner = np.concatenate([own.owner, owner])
        start, stop = (np.concatenate(p) for p in ((own.start, start), (own.stop, stop)))
    order = np.lexsort((start, owner))
    return Runs(segments.size, len(units), owner[order], start[order], stop[order])


def progress(indices: range) -> Iterator[int]:
    """Go through indices of images; say every 10 s how far."""
    shown = time.monotonic()
    for i in indices:
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f'  {i} of {len(indices)} images', file=sys.stderr, flush=True)
        yield i


class PatchSplit:
    """The images of one split of a config, read by its test pipeline.

    That pipeline neither crops nor flips. Its `LoadPatches` is replaced by that of the split.

    Args:
        cfg: a config with a data loader of the split, `LoadPatches` and `LoadUnits`.
        split: 'train', 'val' or 'test'.
        store: patch store instead of the config's.
        limit: at most so many images, evenly over the split.

    Raises:
        UserError: the config lacks one of these.
    """

    def __init__(
        self, cfg: Config, split: str, store: str | None = None, limit: int | None = None
    ) -> None:
        node = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        if not isinstance(node, dict):
            raise UserError(
                f'{cfg.filename}: expected {split}_dataloader.dataset, found {node!r}. Choose '
                f'other splits with --split.'
            )
        init_default_scope(cfg.get('default_scope') or 'mmprompt')
        self.split = split
        self.steps = [ROOT_TRANSFORMS.build(step) for step in _pipeline(cfg, node, store)]
        self.dataset = build_dataset(node)
        self.meta = self.dataset.metainfo
        self.classes = tuple(self.meta['classes'])
        images = list(labelled_images(self.dataset))
        if limit is not None and limit < len(images):
            chosen = np.linspace(0, len(images) - 1, max(limit, 1)).round().astype(int)
            images = [images[i] for i in chosen]
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def path(self, i: int) -> str:
        """The file of one image."""
        dataset, index = self._images[i]
        return str(dataset.get_data_info(index)['img_path'])

    def read(self, i: int, with_sample: bool = False) -> TruthImage:
        """Read one image.

        Raises:
            UserError: an image, a label or the store cannot be used, or a transform returns none.
        """
        dataset, index = self._images[i]
        results: Any = dataset.get_data_info(index)
        path = results['img_path']
        found: dict[str, Any] = {}
        for step in self.steps:
            if type(step).__name__ == 'LoadUnits':
                found['things'] = tuple(results.get('thing_classes', step.thing_classes))
            results = step(results)
            if results is None:
                raise UserError(
                    f'{path}: expected a test pipeline that gives a sample of every image, found '
                    f'that {type(step).__name__} gives none. Take it out of test_dataloader.'
                )
            for key in ('units', 'patch_set', 'patch_ids'):
                if key in results:
                    found[key] = results[key]
            if not with_sample and 'units' in found and 'patch_ids' in found:
                break
        units = found['units']
        return TruthImage(
            path=str(path),
            patches=found['patch_set'].select(found['patch_ids']),
            units=units,
            runs=unit_runs(units),
            things=found['things'],
            sample=results['data_samples'] if with_sample else None,
        )

    def __iter__(self) -> Iterator[TruthImage]:
        return (self.read(i) for i in range(len(self)))

    def name(self, path: str) -> str:
        """An image's path below the folder of its data set."""
        root = Path(getattr(self._images[0][0], 'data_root', None) or '.')
        try:
            return Path(path).resolve().relative_to(root.resolve()).as_posix()
        except ValueError:
            return path


def _pipeline(cfg: Config, node: dict, store: str | None) -> Sequence[dict]:
    loaders = ('test_dataloader', 'val_dataloader')
    tests = [steps_of(cfg.get(name)) for name in loaders]
    steps = next((steps for steps in tests if steps), steps_of(dict(dataset=node)))
    own = {step_name(step): step for step in steps_of(dict(dataset=node))}
    steps = [own.get('LoadPatches', s) if step_name(s) == 'LoadPatches' else s for s in steps]
    kinds = [step_name(step) for step in steps]
    missing = [kind for kind in ('LoadPatches', 'LoadUnits') if kind not in kinds]
    if missing:
        raise UserError(
            f'{cfg.filename}: expected {" and ".join(missing)} in the pipeline of '
            f'test_dataloader.dataset, found {", ".join(kinds) or "nothing"}. Patches are measured '
            f'against labels: add them behind LoadImageFromFile and behind the labels.'
        )
    if store is not None:
        steps = [dict(s, store=store) if step_name(s) == 'LoadPatches' else s for s in steps]
    return steps
