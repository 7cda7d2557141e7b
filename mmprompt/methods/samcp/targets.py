"""What the queries shall find: the matching matrix G and its rows for each kind of query.

Section 3.2.3: a patch is part of a true unit if it lies inside it by box and by mask. Notation as
in `structures`; K units of an image, padded to the most of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.merging import boxes_around
from mmprompt.registry import TASK_UTILS

LOW_QUALITY = (None, 'paper', 'code')
#: Values of the matching matrix.
PART, OTHER, IGNORED = 1, 0, -1


@TASK_UTILS.register_module()
class SAMCPPartAssigner:
    """The matching matrix G: which patches are parts of which unit.

    Quality is min(box IoP, mask IoP); IoP is the intersection over the area of the patch. Table 12
    varies `tau`, `use_box`, `use_mask` and `low_quality`.

    Args:
        tau: a patch of higher quality is a part.
        low_quality: what becomes of patches whose boxes fit the unit well. 'paper': a unit without
            any part takes all patches of box IoU at least `low_quality_iou`. 'code': a unit takes
            all patches of box IoU above `low_quality_iou` that also fit better than the best of
            its parts, whether it has any or not. None: nothing.
        low_quality_iou: of the boxes.
        ignore_band: patches of a quality from here up to `tau` count neither as parts nor as
            others; None: no patch does.
        use_box, use_mask: which of the two IoP the quality is made of.

    Raises:
        ValueError: another `low_quality`, neither IoP, or a threshold out of range.
    """

    def __init__(
        self,
        tau: float = 0.8,
        low_quality: str | None = 'paper',
        low_quality_iou: float = 0.5,
        ignore_band: float | None = None,
        use_box: bool = True,
        use_mask: bool = True,
    ) -> None:
        if low_quality not in LOW_QUALITY:
            raise ValueError(f'low_quality: expected one of {LOW_QUALITY}, found {low_quality!r}.')
        if not (use_box or use_mask):
            raise ValueError('use_box and use_mask: expected at least one of them, found neither.')
        if not (0 <= tau <= 1 and 0 < low_quality_iou <= 1):
            raise ValueError(
                f'tau and low_quality_iou: expected shares of 1, the second above 0, found {tau} '
                f'and {low_quality_iou}.'
            )
        if ignore_band is not None and not 0 < ignore_band <= tau:
            raise ValueError(
                f'ignore_band: expected more than 0 and at most tau = {tau}, found {ignore_band}.'
            )
        self.tau, self.ignore_band = tau, ignore_band
        self.low_quality, self.low_quality_iou = low_quality, low_quality_iou
        self.use_box, self.use_mask = use_box, use_mask

    @torch.no_grad()
    def __call__(self, mask_iop: Tensor, box_iop: Tensor, box_iou: Tensor) -> Tensor:
        """G of any number of images at once; what is padding has zeros in all three.

        Args:
            mask_iop, box_iop, box_iou: (..., K, N), of units and patches.

        Returns:
            (..., K, N) int8: 1 part, 0 none, -1 ignored.
        """
        both = self.use_box and self.use_mask
        quality = torch.minimum(mask_iop, box_iop) if both else box_iop
        quality = mask_iop if self.use_mask and not both else quality
        part = quality > self.tau
        if self.low_quality == 'paper' and part.shape[-1]:
            alone = ~part.any(dim=-1, keepdim=True)  # (..., K, 1)
            part = part | (alone & (box_iou >= self.low_quality_iou))
        elif self.low_quality == 'code' and part.shape[-1]:
            best = (box_iou * part).amax(dim=-1, keepdim=True)
            part = part | ((box_iou > self.low_quality_iou) & (box_iou > best))
        parts = part.to(torch.int8)
        if self.ignore_band is not None:
            parts[~part & (quality >= self.ignore_band)] = IGNORED
        return parts


@dataclass
class InstanceTargets:
    """What instance queries are matched to; rows of K are those of `gt_units`.

    Attributes:
        labels: (B, K) column of the unit's class among the thing classes; 0 if `real` is False.
        parts: (B, K, N) int8, G.
        boxes: (B, K, 4) normalised.
        real: (B, K) bool: an instance, neither padding nor the region of a class.
        usable: (B, K) bool: a real one that something can be learned from; see `build_targets`.
        foreign: (B, K) bool: an instance of a class that is no thing, an error of the data.
        num_units: K of each image.
        num_patches: N of each image.
    """

    labels: Tensor
    parts: Tensor
    boxes: Tensor
    real: Tensor
    usable: Tensor
    foreign: Tensor
    num_units: list[int]
    num_patches: list[int]


@dataclass
class SemanticTargets:
    """What semantic queries shall find, without any matching.

    Attributes:
        present: (B, S) bool: the class is in the image.
        usable: (B, S) bool: it is, and has parts.
        parts: (B, S, N) int8, the row of G of the region of that class.
    """

    present: Tensor
    usable: Tensor
    parts: Tensor


@dataclass
class BatchTargets:
    """The targets of a batch, the same for all layers."""

    instance: InstanceTargets
    semantic: SemanticTargets


def _padded(tensors: Sequence[Tensor], shape: tuple[int, ...], device, dtype=None) -> Tensor:
    """Tensors that begin at index 0 of each dimension of (B, *shape), zeros around them."""
    out = torch.zeros(len(tensors), *shape, device=device, dtype=dtype or tensors[0].dtype)
    for row, tensor in zip(out, tensors):
        row[tuple(slice(side) for side in tensor.shape)] = tensor.to(device, non_blocking=True)
    return out


def _place(labels: Tensor, classes: Tensor) -> Tensor:
    """Position of every label in `classes`, -1 where it is not there; asks the device nothing."""
    same = labels[..., None] == classes.to(labels.device)  # (..., classes)
    if not len(classes):
        return torch.full_like(labels, -1)
    return same.to(torch.uint8).argmax(dim=-1).masked_fill(~same.any(dim=-1), -1)


def _units(samples: Sequence) -> list:
    found = []
    for sample in samples:
        units = sample.get('gt_units')
        if units is None or 'mask_iop' not in units:
            raise UserError(
                f"{sample.get('img_path', 'a sample')}: expected 'gt_units' with labels, "
                f'is_instance, bboxes, mask_iop, box_iop and box_iou, found '
                f'{sorted(sample.keys())}. Put LoadPatches and LoadUnits into the training '
                f'pipeline, and PackPatchInputs at its end.'
            )
        found.append(units)
    return found


def _fits(parts: Tensor, boxes: Tensor, patch_boxes: Tensor) -> Tensor:
    """(B, K) IoU of each unit's box with the box around its parts; 0 without any.

    Args:
        parts: (B, K, N).
        boxes: (B, K, 4).
        patch_boxes: (B, N, 4) of the same frame.
    """
    around = boxes_around(patch_boxes, parts == PART, patch_boxes.new_zeros(4))  # (B, K, 4)
    inner = torch.minimum(around[..., 2:], boxes[..., 2:])
    inner = (inner - torch.maximum(around[..., :2], boxes[..., :2])).clamp(min=0).prod(dim=-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (around, boxes)]
    union = areas[0] + areas[1] - inner
    return inner / union.clamp(min=torch.finfo(union.dtype).tiny)


class Joined(NamedTuple):
    """The units of a batch, padded."""

    overlaps: list[Tensor]  # mask IoP, box IoP, box IoU, (B, K, N) each
    labels: Tensor  # (B, K)
    is_instance: Tensor  # (B, K) bool
    there: Tensor  # (B, K) bool, False for padding
    boxes: Tensor  # (B, K, 4) normalised
    num_units: list[int]
    num_patches: list[int]


def _joined(samples: Sequence, patches: int, device: torch.device) -> Joined:
    units = _units(samples)
    num_units, num_patches = map(list, zip(*(tuple(unit.mask_iop.shape) for unit in units)))
    if max(num_patches) > patches:
        raise UserError(
            f'gt_units.mask_iop: expected at most {patches} patches, as many as the model was '
            f'given, found {max(num_patches)}. Change the patches of a sample and the columns of '
            f'its units together.'
        )
    most = max(max(num_units), 1)

    def padded(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        return _padded([getattr(unit, name) for unit in units], (most, *shape), device, dtype)

    sizes = [[s.img_shape[1], s.img_shape[0]] * 2 for s in samples]
    scale = torch.tensor(sizes, device=device, dtype=torch.float32)[:, None]
    names = ('mask_iop', 'box_iop', 'box_iou')
    return Joined(
        overlaps=[padded(name, torch.float32, patches) for name in names],
        labels=padded('labels', torch.long),
        is_instance=padded('is_instance', torch.bool),
        there=torch.arange(most, device=device) < torch.tensor(num_units, device=device)[:, None],
        boxes=padded('bboxes', torch.float32, 4) / scale,
        num_units=num_units,
        num_patches=num_patches,
    )


@torch.no_grad()
def build_targets(
    samples: Sequence,
    boxes: Tensor,
    thing_classes: Tensor,
    semantic_classes: Tensor,
    assigner: SAMCPPartAssigner,
    semantic_assigner: SAMCPPartAssigner | None = None,
    min_box_iou: float | None = None,
) -> BatchTargets:
    """Targets of a batch on the device of `boxes`, computed once for all layers.

    A unit is usable if a patch is part of it and, with `min_box_iou`, the box around its parts
    overlaps its own by more than that.

    Args:
        samples: each with `gt_units` and the meta key `img_shape` (height, width).
        boxes: (B, N, 4) normalised boxes of the patches, padded.
        thing_classes: (T,).
        semantic_classes: (S,).
        assigner: makes G.
        semantic_assigner: makes the rows of G of the regions of classes; None: the same.
        min_box_iou: IoU of the box of an instance with the box around its parts; None: any.

    Raises:
        UserError: a sample without units, or with more patches than `boxes` has.
    """
    units = _joined(samples, boxes.shape[1], boxes.device)
    parts = assigner(*units.overlaps)
    single, columns = units.there & units.is_instance, _place(units.labels, thing_classes)
    real = single & (columns >= 0)
    usable = real & (parts == PART).any(dim=-1)
    if min_box_iou is not None:
        usable &= _fits(parts, units.boxes, at_least_float(boxes)) > min_box_iou
    instance = InstanceTargets(
        labels=columns.clamp(min=0) * real,
        parts=parts,
        boxes=units.boxes,
        real=real,
        usable=usable,
        foreign=single & (columns < 0),
        num_units=units.num_units,
        num_patches=units.num_patches,
    )
    rows = _place(units.labels, semantic_classes)
    region = units.there & ~units.is_instance & (rows >= 0)
    regions = parts if semantic_assigner is None else semantic_assigner(*units.overlaps)
    return BatchTargets(instance, _semantic(rows, region, regions, len(semantic_classes)))


def _semantic(rows: Tensor, region: Tensor, parts: Tensor, count: int) -> SemanticTargets:
    """Units that are regions of classes -> one row per semantic query.

    Args:
        rows: (B, K) the query of the unit's class.
        region: (B, K) bool.
        parts: (B, K, N).
        count: S.
    """
    batch, _, patches = parts.shape
    slot = rows.masked_fill(~region, count)  # everything else goes behind the last row
    image = torch.arange(batch, device=rows.device)[:, None].expand_as(slot)
    table = parts.new_zeros(batch, count + 1, patches)
    table[image, slot] = parts
    present = torch.zeros(batch, count + 1, dtype=torch.bool, device=rows.device)
    present[image, slot] = True
    table, present = table[:, :count], present[:, :count]
    return SemanticTargets(present, present & (table == PART).any(dim=-1), table)
