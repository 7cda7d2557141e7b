"""Loading of labels, loading and packing of panoptic targets, for MMSegmentation pipelines.

A panoptic map carries one integer per pixel, `(class + 1) * 1000 + n`: n = 0 for stuff, n >= 1 for
the n-th instance of a thing, n = 0 of a thing class for a crowd (a group not told apart). Anything
below 1000 is void, which includes 255, the value that MMSegmentation pads maps with.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform, to_tensor
from mmengine.structures import InstanceData, PixelData
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.registry import TRANSFORMS

ID_DIVISOR = 1000
CITYSCAPES_THINGS = (11, 12, 13, 14, 15, 16, 17, 18)


@TRANSFORMS.register_module()
class LoadAnnotationsByTable(LoadAnnotations):
    """MMSegmentation's `LoadAnnotations` with a dataset's `label_map` applied through a table.

    The result is the same. The original passes over the image once per entry of the map: for the
    66 of Mapillary and 20 million pixels that is 1.8 s of one core against 0.1 s.
    """

    def _load_seg_map(self, results: dict) -> None:
        label_map = results.get('label_map')
        results['label_map'] = None
        super()._load_seg_map(results)
        results['label_map'] = label_map
        if label_map is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(label_map)] = list(label_map.values())
            results['gt_seg_map'] = table[results['gt_seg_map']]


def panoptic_ids(labels: np.ndarray, instance_ids: np.ndarray, things: Sequence[int]) -> np.ndarray:
    """Join a label map and a Cityscapes instance map into a panoptic map.

    Args:
        labels: (H, W) training labels, 255 = void.
        instance_ids: (H, W) as in gtFine_instanceIds: below 1000 where nothing is told apart.
        things: training labels that are counted one by one.

    Returns:
        (H, W) int32, see the module's docstring; void is 0.
    """
    labels = labels.astype(np.int32)
    instance_ids = instance_ids.astype(np.int32)
    single = np.isin(labels, np.asarray(things)) & (instance_ids >= ID_DIVISOR)
    # Cityscapes counts from 0; here 0 is taken. 999 is reached by no data set in this format.
    number = np.where(single, np.minimum(instance_ids % ID_DIVISOR + 1, ID_DIVISOR - 1), 0)
    return np.where(labels == 255, 0, (labels + 1) * ID_DIVISOR + number).astype(np.int32)


def describe_segments(
    panoptic_map: np.ndarray, things: Sequence[int], min_area: int = 1
) -> InstanceData:
    """List the segments of a panoptic map.

    Returns:
        InstanceData with `ids`, `labels`, `areas` (S,) int64, `is_thing` and `is_crowd` (S,) bool.
    """
    ids, areas = np.unique(panoptic_map, return_counts=True)
    keep = (ids >= ID_DIVISOR) & (areas >= min_area)
    ids, areas = ids[keep].astype(np.int64), areas[keep].astype(np.int64)
    labels = ids // ID_DIVISOR - 1
    is_thing = np.isin(labels, np.asarray(things))
    return InstanceData(
        ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        areas=torch.from_numpy(areas),
        is_thing=torch.from_numpy(is_thing),
        is_crowd=torch.from_numpy(is_thing & (ids % ID_DIVISOR == 0)),
    )


@TRANSFORMS.register_module()
class LoadCityscapesPanoptic(BaseTransform):
    """Add `gt_panoptic_map` (H, W) int32 beside `gt_seg_map`, from the image's instanceIds file.

    Runs after `mmseg.LoadAnnotations`. The map joins `seg_fields`, so use the geometric transforms
    of MMSegmentation (`mmseg.Resize`, `mmseg.RandomFlip`, `mmseg.RandomCrop`); those of mmcv move
    `gt_seg_map` alone, which `PackPanopticInputs` detects and refuses.

    Args:
        thing_classes: training labels that are counted one by one.
        label_suffix: end of the label file's name ...
        instance_suffix: ... which this replaces.
    """

    def __init__(
        self,
        thing_classes: Sequence[int] = CITYSCAPES_THINGS,
        label_suffix: str = '_labelTrainIds.png',
        instance_suffix: str = '_instanceIds.png',
    ):
        self.thing_classes = tuple(thing_classes)
        self.label_suffix = label_suffix
        self.instance_suffix = instance_suffix

    def transform(self, results: dict) -> dict:
        """Read, join, register.

        Raises:
            UserError: the label file's name has another ending; the instance file is missing,
                unreadable, or of another size than the label map.
        """
        labels = results['gt_seg_map']
        label_path = str(results['seg_map_path'])
        if not label_path.endswith(self.label_suffix):
            raise UserError(
                f'{label_path}: expected a label file ending in {self.label_suffix!r}, from which '
                f'the instance file is named; set label_suffix and instance_suffix of '
                f'LoadCityscapesPanoptic to the endings of your data.'
            )
        path = Path(label_path[: -len(self.label_suffix)] + self.instance_suffix)
        try:
            with Image.open(path) as file:
                instance_ids = np.array(file)
        except FileNotFoundError as error:
            raise UserError(
                f'{path}: the instance map of {label_path} is missing; panoptic and instance '
                f'targets need it. Provide it or remove LoadCityscapesPanoptic from the pipeline.'
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(
                f'{path}: expected a readable PNG instance map, found: {error}. Copy or make the '
                f'file again.'
            ) from error
        if instance_ids.shape != labels.shape:
            raise UserError(
                f'{path}: expected an instance map of {labels.shape} pixels like {label_path}, '
                f'found {instance_ids.shape}. Load it before any resizing.'
            )
        results['gt_panoptic_map'] = panoptic_ids(labels, instance_ids, self.thing_classes)
        results['seg_fields'].append('gt_panoptic_map')
        return results


@TRANSFORMS.register_module()
class PackPanopticInputs(PackSegInputs):
    """`mmseg.PackSegInputs` plus `gt_panoptic_seg` (1, H, W) int64 and `gt_segments`.

    `gt_segments` is described at `describe_segments`; it is computed here, after all cropping.

    Args:
        thing_classes: as of `LoadCityscapesPanoptic`. A data set that says in each sample what its
            things are, as `CocoPanopticSegDataset` does, comes first.
        min_area: segments with fewer pixels are left out of `gt_segments` (their pixels stay).
    """

    def __init__(
        self, thing_classes: Sequence[int] = CITYSCAPES_THINGS, min_area: int = 1, **kwargs
    ):
        super().__init__(**kwargs)
        self.thing_classes = tuple(thing_classes)
        self.min_area = min_area

    def transform(self, results: dict) -> dict:
        """Pack one sample.

        Raises:
            UserError: the two maps no longer show the same classes at the same pixels.
        """
        packed = super().transform(results)
        if 'gt_panoptic_map' not in results:
            return packed
        panoptic_map = np.ascontiguousarray(results['gt_panoptic_map']).astype(np.int64)
        self._check_aligned(results['gt_seg_map'], panoptic_map, results)
        things = results.get('thing_classes', self.thing_classes)
        sample = packed['data_samples']
        sample.set_data(
            dict(
                gt_panoptic_seg=PixelData(data=to_tensor(panoptic_map[None])),
                gt_segments=describe_segments(panoptic_map, things, self.min_area),
            )
        )
        return packed

    @staticmethod
    def _check_aligned(labels: np.ndarray, panoptic_map: np.ndarray, results: dict) -> None:
        found = panoptic_map.shape
        if found == labels.shape:
            void = panoptic_map < ID_DIVISOR
            classes = np.where(void, 255, panoptic_map // ID_DIVISOR - 1)
            if np.array_equal(classes, labels):
                return
            found = 'other classes at the same pixels'
        raise UserError(
            f'{results.get("img_path", "pipeline")}: gt_panoptic_map no longer lies on gt_seg_map '
            f'(expected shape {labels.shape} and equal classes, found {found}). A transform moved '
            f'only one of them: use mmseg.Resize, mmseg.RandomFlip and mmseg.RandomCrop, which '
            f'move all seg_fields, in place of those of mmcv.'
        )


@TRANSFORMS.register_module()
class PanopticFromLabels(BaseTransform):
    """Add `gt_panoptic_map` from `gt_seg_map` alone: one segment per class, no instances.

    For data sets without instance annotations, such as CamVid; see `LoadCityscapesPanoptic`.
    """

    def transform(self, results: dict) -> dict:
        """Register the map beside the label map."""
        labels = results['gt_seg_map']
        results['gt_panoptic_map'] = panoptic_ids(labels, np.zeros_like(labels), ())
        results['seg_fields'].append('gt_panoptic_map')
        return results
