"""What results the patches of a data set allow: two merge oracles, and each patch by itself.

- The *merge oracle*: every true unit becomes the union of the patches that are its parts, with its
  class and, as score, its IoU. `parts` are those that training would call so (the part assigners of
  the config): what a model reaches that learns its targets by heart. `greedy` looks for the best
  patches (`proposal_quality`): near what any merging of them could reach.
- *Each patch an object*: every patch is its own object, with the class of the unit that it lies in
  most, and that share as score: what there is before anything is merged. Of overlapping patches the
  smaller lies on top. Classes are the true ones, so it is no floor of semantic segmentation, where
  nothing must be merged.

In both, a pixel that several claim is decided as well as the truth can: of the oracle's units its
own comes first (the smaller of several), then the one whose union is purest.

Notation: K units, N patches, A atoms of units and patches, (H, W) pixels of the original image.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.structures import BaseDataElement, PixelData
from mmseg.evaluation import IoUMetric

from mmprompt.apis.patches.truth import PatchSplit, TruthImage
from mmprompt.common.mask_merge import InstanceResult, PanopticResult
from mmprompt.common.patches import box_iop, box_iou
from mmprompt.common.results import add_instances, add_panoptic
from mmprompt.evaluation import InstanceAP, PanopticQuality
from mmprompt.evaluation.proposal_quality import Overlaps, greedy_members

ORACLE, GREEDY, EACH = 'merge oracle (parts)', 'merge oracle (greedy)', 'each patch an object'
UNCLAIMED = 255


class AtomResult(NamedTuple):
    """Predictions of one image, in atoms."""

    semantic: np.ndarray  # (A,) class; 255 = none
    masks: np.ndarray  # (P, A) bool instances
    labels: np.ndarray  # (P,)
    scores: np.ndarray  # (P,)
    panoptic: np.ndarray  # (A,) row of the segment; -1 = none
    segment_labels: np.ndarray  # (S,)
    segment_scores: np.ndarray  # (S,)


class Assigners(NamedTuple):
    """What a config's loss makes parts with: of instances, and of the regions of classes."""

    instances: Any
    regions: Any


def part_assigners(cfg: Config) -> Assigners:
    """The part assigners of a config's model; the paper's where it names none."""
    found: dict[str, Any] = {}
    pending = [cfg.get('model')]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            found |= {k: node[k] for k in ('part_assigner', 'semantic_assigner') if node.get(k)}
            pending += node.values()
        elif isinstance(node, (list, tuple)):
            pending += node
    instances = found.get('part_assigner') or {}
    built = (
        ROOT_TASK_UTILS.build({'type': 'mmprompt.SAMCPPartAssigner', **spec})
        for spec in (instances, found.get('semantic_assigner') or instances)
    )
    return Assigners(*built)


def assigned_members(image: TruthImage, overlaps: Overlaps, assigners: Assigners) -> np.ndarray:
    """(K, N) bool: which patches training would call parts of which unit."""
    boxes = image.patches.boxes.astype(np.float64)
    units = image.runs.boxes().astype(np.float64)
    pairs = (overlaps.iop, box_iop(boxes, units), box_iou(boxes, units))
    pairs = [torch.from_numpy(np.asarray(p, np.float32)) for p in pairs]
    instances, regions = (assigner(*pairs).numpy() == 1 for assigner in assigners)
    return np.where(image.units.is_instance[:, None], instances, regions)


def segment_rows(image: TruthImage) -> np.ndarray:
    """(K,) bool: the units that make up a panoptic map, instances and the regions of stuff."""
    stuff = ~np.isin(image.units.labels, np.array(image.things, int))
    return image.units.is_instance | stuff


def oracle(image: TruthImage, overlaps: Overlaps, members: np.ndarray) -> AtomResult:
    """Every unit as the union of its patches, members (K, N) bool."""
    labels, single = image.units.labels, image.units.is_instance
    named = np.append(labels, 0)  # an image may have no unit at all
    claims, ious = overlaps.atoms_of(members), overlaps.union_iou(members)
    size = claims @ overlaps.areas
    purity = (claims & overlaps.objects) @ overlaps.areas / np.maximum(size, 1)  # (K,)
    small = overlaps.object_areas / overlaps.areas.sum()  # at most 1
    rank = np.where(overlaps.objects, 3 - small[:, None], purity[:, None]) * claims  # (K, A)
    semantic = _winner(rank, ~single)
    found = np.flatnonzero(single & (size > 0))
    segments = _winner(rank, segment_rows(image))
    return AtomResult(
        np.where(semantic < 0, UNCLAIMED, named[semantic]),
        claims[found],
        labels[found],
        ious[found],
        segments,
        labels,
        ious,
    )


def _winner(rank: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(A,) the row of highest rank among some; -1 where none is above 0."""
    index = np.flatnonzero(rows)
    if not len(index):
        return np.full(rank.shape[1], -1)
    rank = rank[index]
    return np.where(rank.max(axis=0) > 0, index[rank.argmax(axis=0)], -1)


def each_patch(image: TruthImage, overlaps: Overlaps) -> AtomResult:
    """Every patch as an object of its own."""
    labels, single = image.units.labels, image.units.is_instance
    named = np.append(labels, 0)  # an image may have no unit at all
    order = np.argsort(overlaps.patch_areas, kind='stable')

    def chosen(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each patch the unit it lies in most and the share; -1 if it lies in none."""
        index = np.flatnonzero(rows)
        if not len(index) or not overlaps.iop.shape[1]:
            nothing = np.full(overlaps.iop.shape[1], -1)
            return nothing, np.zeros(len(nothing))
        share = overlaps.iop[index].max(axis=0)
        return np.where(share > 0, index[overlaps.iop[index].argmax(axis=0)], -1), share

    def painted(units: np.ndarray) -> np.ndarray:
        """(A,) the smallest patch that has a unit; -1 where none is."""
        top = order[units[order] >= 0]
        cover = overlaps.patches[top]
        if not len(top):
            return np.full(overlaps.patches.shape[1], -1)
        return np.where(cover.any(axis=0), top[cover.argmax(axis=0)], -1)

    region, _ = chosen(~single)
    unit, share = chosen(segment_rows(image))
    semantic, panoptic = painted(region), painted(unit)
    found = np.flatnonzero((unit >= 0) & np.append(single, False)[unit])
    segment_labels = np.where(unit < 0, 0, named[unit])
    stuff = ~np.isin(segment_labels, np.array(image.things, int))
    # All stuff of a class is one segment, named by the first of its patches.
    _, first, group = np.unique(segment_labels, return_index=True, return_inverse=True)
    rows = np.where(stuff, first[group], np.arange(len(unit)))
    return AtomResult(
        np.where(semantic < 0, UNCLAIMED, named[np.append(region, -1)[semantic]]),
        overlaps.patches[found],
        labels[unit[found]],
        share[found],
        np.where(panoptic < 0, -1, np.append(rows, -1)[panoptic]),
        segment_labels,
        share,
    )


def put_on(sample: BaseDataElement, result: AtomResult, overlaps: Overlaps, image, classes) -> None:
    """Paint a result and add it to a sample as a model would."""
    index = overlaps.atoms.index
    semantic = torch.from_numpy(result.semantic[index].astype(np.int64))
    sample.set_data(dict(pred_sem_seg=PixelData(data=semantic[None])))
    masks = torch.from_numpy(np.ascontiguousarray(result.masks[:, index]))
    labels, scores = torch.from_numpy(result.labels), torch.from_numpy(result.scores)
    add_instances(sample, InstanceResult(masks, labels.long(), scores))
    rows = np.unique(result.panoptic[result.panoptic >= 0])
    number = np.zeros(len(result.segment_labels) + 1, np.int64)  # the last is for -1
    number[rows] = np.arange(1, len(rows) + 1)
    panoptic = PanopticResult(
        torch.from_numpy(number[result.panoptic][index]),
        torch.arange(1, len(rows) + 1),
        torch.from_numpy(result.segment_labels[rows]).long(),
        torch.from_numpy(result.segment_scores[rows]),
    )
    add_panoptic(sample, panoptic, len(classes), image.things)


class Floor:
    """The project's evaluators, for one kind of prediction.

    Args:
        split: whose images they are.
    """

    def __init__(self, split: PatchSplit, things: tuple[int, ...]) -> None:
        self.classes = split.classes
        with _quiet():
            self.metrics = [
                PanopticQuality(thing_classes=things, classwise=False),
                InstanceAP(classwise=False, boxes=True),
                IoUMetric(iou_metrics=['mIoU']),
            ]
        for metric in self.metrics:
            metric.dataset_meta = {**split.meta, 'classes': self.classes}
        self.images = 0

    def add(self, image: TruthImage, overlaps: Overlaps, result: AtomResult) -> None:
        """Count one image."""
        put_on(image.sample, result, overlaps, image, self.classes)
        data = [image.sample.to_dict()]
        truth = dict(PQ='gt_panoptic_seg', AP='gt_segments', mIoU='gt_sem_seg')
        for metric, key in zip(self.metrics, truth.values()):
            if key in data[0] or (key == 'gt_segments' and 'gt_instances' in data[0]):
                metric.process({}, data)
        self.images += 1

    def measured(self) -> dict[str, float]:
        """Metrics of all three tasks over the images."""
        values: dict[str, float] = {}
        with _quiet():
            for metric in self.metrics:
                if metric.results:
                    values |= metric.evaluate(self.images)
        return values


@contextmanager
def _quiet() -> Iterator[None]:
    """Without tables of classes, and without hints about prefixes."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)


def measure_floors(
    split: PatchSplit, cfg: Config, watch: Callable = iter
) -> Mapping[str, Mapping[str, float]]:
    """Metrics of the floors, by their names.

    Args:
        split: the images.
        cfg: names the part assigners.
        watch: wraps the iteration over the images, to show progress.
    """
    assigners, floors = part_assigners(cfg), {}
    for i in watch(range(len(split))):
        image = split.read(i, with_sample=True)
        overlaps = Overlaps(image.runs, image.patch_runs())
        results = {
            ORACLE: oracle(image, overlaps, assigned_members(image, overlaps, assigners)),
            GREEDY: oracle(image, overlaps, greedy_members(overlaps)),
            EACH: each_patch(image, overlaps),
        }
        for name, result in results.items():
            if name not in floors:
                floors[name] = Floor(split, image.things)
            floors[name].add(image, overlaps, result)
    return {name: floor.measured() for name, floor in floors.items()}
