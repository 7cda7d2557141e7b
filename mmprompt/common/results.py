"""Panoptic and instance results in the data structures of MMSegmentation and MMDetection.

Beside `pred_sem_seg` a sample may hold

- `pred_panoptic_seg`: a PixelData. `data` (1, H, W) int64 are ids of segments, 0 = unlabelled;
  `sem_seg` (1, H, W) int32 is the same in MMDetection's encoding, class + 1000 * n with n = 0 for
  stuff, and the number of classes where nothing is labelled; left out from 1,000 classes on;
- `pred_segments`: an InstanceData that describes `data`: `ids`, `labels`, `scores`;
- `pred_instances`: an InstanceData with `masks` (K, H, W) bool, `bboxes` (K, 4) xyxy in pixels of
  the image, `labels` and `scores`.

MMDetection's metrics read these names; `to_det_sample` makes its `DetDataSample` of a sample.
"""

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmprompt.common.mask_merge import InstanceResult, PanopticResult

INSTANCE_OFFSET = 1000  # MMDetection's; its import needs the package


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (K, 4) float, x1 y1 x2 y2 with x2 and y2 behind the last pixel; 0 if empty.

    Args:
        masks: (K, H, W) bool.
    """
    sides = []
    for axis in (1, 2):  # whether a column, a row holds a pixel
        used = masks.any(dim=axis).to(torch.uint8)  # (K, W), (K, H)
        size = used.shape[1]
        first, last = used.argmax(dim=1), size - used.flip(1).argmax(dim=1)
        some = used.any(dim=1)
        sides += [first * some, last * some]
    left, right, top, bottom = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def mmdet_ids(result: PanopticResult, num_classes: int, thing_classes: Sequence[int]) -> Tensor:
    """A panoptic result in MMDetection's encoding, (H, W) int32.

    Args:
        result: ids 1..S.
        num_classes: C, which stands for "unlabelled".
        thing_classes: classes whose segments are numbered.
    """
    labels = result.labels
    things = torch.isin(labels, labels.new_tensor(list(thing_classes)))
    table = result.seg_map.new_full((len(labels) + 1,), num_classes)
    table[1:] = labels + INSTANCE_OFFSET * result.ids * things
    return table.int()[result.seg_map]


def add_panoptic(
    sample: BaseDataElement,
    result: PanopticResult,
    num_classes: int,
    thing_classes: Sequence[int],
) -> None:
    """Add `pred_panoptic_seg` and `pred_segments`."""
    segments = InstanceData(ids=result.ids, labels=result.labels, scores=result.scores)
    maps = PixelData(data=result.seg_map[None])
    if num_classes < INSTANCE_OFFSET:  # else two segments may have one number
        maps.sem_seg = mmdet_ids(result, num_classes, thing_classes)[None]
    sample.set_data(dict(pred_panoptic_seg=maps, pred_segments=segments))


def add_instances(sample: BaseDataElement, result: InstanceResult) -> None:
    """Add `pred_instances`."""
    found = InstanceData(
        masks=result.masks,
        bboxes=mask_boxes(result.masks),
        labels=result.labels,
        scores=result.scores,
    )
    sample.set_data(dict(pred_instances=found))


def to_det_sample(sample: BaseDataElement) -> BaseDataElement:
    """MMDetection's `DetDataSample` with the meta data and all fields of a sample; nothing copied.

    Needs MMDetection, but none of its models or compiled operators.
    """
    from mmdet.structures import DetDataSample

    found = DetDataSample(metainfo=sample.metainfo)
    found.set_data(dict(sample.items()))
    return found
