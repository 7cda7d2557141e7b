"""Panoptic quality, as the published algorithm computes it, without its package.

PQ = sum of IoU over matched pairs / (TP + FP / 2 + FN / 2) = SQ * RQ, per class and then averaged
(Kirillov et al., Panoptic Segmentation, CVPR 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable

from mmprompt.common.errors import UserError
from mmprompt.evaluation.groups import Groups, read_groups
from mmprompt.registry import METRICS


class PanopticCounts(NamedTuple):
    """What one image adds. The IoUs stay single so that their order of summation is fixed."""

    classes: np.ndarray  # (TP,) class of each matched pair
    ious: np.ndarray  # (TP,)
    false_positives: np.ndarray  # (C,)
    false_negatives: np.ndarray  # (C,)


def _to_rows(segment_map: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(H, W) ids -> (H*W,) 1 + position in `ids`, or 0 where the id is not listed."""
    flat = np.asarray(segment_map).reshape(-1)
    if len(ids) == 0:
        return np.zeros(flat.shape, dtype=np.int64)
    order = np.argsort(ids, kind='stable')
    place = np.searchsorted(ids[order], flat).clip(max=len(ids) - 1)
    return np.where(ids[order][place] == flat, order[place] + 1, 0)


def count_image(
    gt_map: np.ndarray,
    gt_ids: np.ndarray,
    gt_labels: np.ndarray,
    gt_crowd: np.ndarray,
    pred_map: np.ndarray,
    pred_ids: np.ndarray,
    pred_labels: np.ndarray,
    num_classes: int,
) -> PanopticCounts:
    """Match the segments of one image.

    A pair matches if the classes agree and IoU > 0.5, with void pixels left out of the union and
    crowds never matched. A prediction that matches nothing is forgiven if more than half of it lies
    on void or on the crowd of its class (the last listed, if a class has several).

    Args:
        gt_map, pred_map: (H, W) ids. True ids that are not listed are void; so is the predicted 0.
        gt_ids, gt_labels, gt_crowd: (G,) the true segments; a crowd is a group not told apart.
        pred_ids, pred_labels: (P,) the predicted segments.

    Raises:
        ValueError: a predicted id is on the map and not in the list, or the other way round.
    """
    gt_rows, pred_rows = _to_rows(gt_map, gt_ids), _to_rows(pred_map, pred_ids)
    stray = np.unique(np.asarray(pred_map).reshape(-1)[pred_rows == 0])
    table = np.bincount(
        gt_rows * (len(pred_ids) + 1) + pred_rows,
        minlength=(len(gt_ids) + 1) * (len(pred_ids) + 1),
    ).reshape(len(gt_ids) + 1, len(pred_ids) + 1)
    pred_area, gt_area = table.sum(axis=0)[1:], table.sum(axis=1)[1:]
    if (stray != 0).any() or (pred_area == 0).any():
        raise ValueError(
            f'Predicted panoptic map: expected 0 and the listed ids {pred_ids.tolist()}, found '
            f'{stray.tolist()} on the map without a segment and '
            f'{pred_ids[pred_area == 0].tolist()} listed without a pixel.'
        )
    on_void, inside = table[0, 1:], table[1:, 1:]  # (P,), (G, P)

    union = pred_area[None] + gt_area[:, None] - inside - on_void[None]
    iou = inside / np.maximum(union, 1)  # without overlap the union may be 0
    same = (gt_labels[:, None] == pred_labels[None]) & ~gt_crowd[:, None]
    pairs = np.argwhere(same & (iou > 0.5))
    # Sums depend on the order in the last digit; the published one is that of the ids.
    gt_index, pred_index = pairs[np.lexsort((pred_ids[pairs[:, 1]], gt_ids[pairs[:, 0]]))].T

    missed = ~gt_crowd
    missed[gt_index] = False
    forgiven = on_void.astype(np.int64)
    crowd_of_class = {int(gt_labels[g]): g for g in np.nonzero(gt_crowd)[0]}
    for label, crowd in crowd_of_class.items():
        forgiven = forgiven + np.where(pred_labels == label, inside[crowd], 0)
    wrong = ~(forgiven / np.maximum(pred_area, 1) > 0.5)
    wrong[pred_index] = False
    return PanopticCounts(
        gt_labels[gt_index],
        iou[gt_index, pred_index],
        np.bincount(pred_labels[wrong], minlength=num_classes),
        np.bincount(gt_labels[missed], minlength=num_classes),
    )


def summarise(counts: Sequence[PanopticCounts], num_classes: int) -> dict[str, np.ndarray]:
    """Per-class `pq`, `sq`, `rq` in [0, 1] and `occurs` (bool), each (C,).

    A class that is neither annotated nor predicted anywhere does not occur, and takes no part in
    means.
    """
    classes = np.concatenate([c.classes for c in counts]).astype(np.int64)
    ious = np.concatenate([c.ious for c in counts])
    matched = np.bincount(classes, minlength=num_classes).astype(np.float64)
    iou_sum = np.bincount(classes, weights=ious, minlength=num_classes)
    false_positives = sum(c.false_positives for c in counts)
    false_negatives = sum(c.false_negatives for c in counts)
    weight = matched + 0.5 * false_positives + 0.5 * false_negatives
    safe = np.where(weight > 0, weight, 1)
    return dict(
        pq=iou_sum / safe,
        sq=iou_sum / np.where(matched > 0, matched, 1),
        rq=matched / safe,
        occurs=weight > 0,
    )


def _array(value) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, 'detach') else np.asarray(value)


@METRICS.register_module()
class PanopticQuality(BaseMetric):
    """PQ, SQ and RQ over all classes, things (`_th`) and stuff (`_st`), in percent.

    Reads from each sample `gt_panoptic_seg` and `gt_segments` (`ids`, `labels`, `is_crowd`), as
    `PackPanopticInputs` writes them, and `pred_panoptic_seg` and `pred_segments` (`ids`, `labels`).

    Args:
        thing_classes: labels, or names of classes, counted one by one; None takes `thing_classes`
            of the data set's meta.
        classwise: also log a table per class.
        groups: names of classes by the name of a group: also `PQ_GROUP`, `SQ_GROUP` and `RQ_GROUP`
            over the classes of each, things and stuff.
        collect_device, prefix: as of `mmengine.BaseMetric`.
    """

    def __init__(
        self,
        thing_classes: Sequence[int | str] | None = None,
        classwise: bool = True,
        groups: Groups | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thing_classes = thing_classes
        self.classwise = classwise
        self.groups = groups

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the segments of a batch."""
        for sample in data_samples:
            for key in ('gt_panoptic_seg', 'gt_segments', 'pred_panoptic_seg', 'pred_segments'):
                if key not in sample:
                    raise UserError(
                        f'PanopticQuality: expected {key!r} in every sample, found '
                        f'{sorted(sample)}. Truth comes from LoadCityscapesPanoptic and '
                        f'PackPanopticInputs in the test pipeline, predictions from the model with '
                        f'panoptic=True in its test_cfg.'
                    )
            truth, found = sample['gt_segments'], sample['pred_segments']
            self.results.append(
                count_image(
                    _array(sample['gt_panoptic_seg']['data'])[0],
                    _array(truth['ids']),
                    _array(truth['labels']),
                    _array(truth['is_crowd']).astype(bool),
                    _array(sample['pred_panoptic_seg']['data'])[0],
                    _array(found['ids']),
                    _array(found['labels']),
                    len(self.dataset_meta['classes']),
                )
            )

    def compute_metrics(self, results: list[PanopticCounts]) -> dict[str, float]:
        """Means over the classes that occur; NaN for a group without any.

        Raises:
            UserError: it is not known what things are, or see `read_groups`.
        """
        names = self.dataset_meta['classes']
        things = self.thing_classes
        if things is None:
            things = self.dataset_meta.get('thing_classes')
        if things is None:
            raise UserError(
                "PanopticQuality: expected thing_classes, as an argument or in the data set's "
                'meta, found neither. Name the labels that are counted one by one.'
            )
        # Gathering turns named tuples into plain ones.
        stats = summarise([PanopticCounts(*r) for r in results], len(names))
        labels = [names.index(c) if isinstance(c, str) else c for c in things]
        is_thing = np.isin(np.arange(len(names)), labels)
        groups = {'': np.ones_like(is_thing), '_th': is_thing, '_st': ~is_thing}
        named = read_groups(self.groups, names, 'PanopticQuality')
        groups |= {f'_{name}': members for name, members in named.items()}
        values = {}
        for suffix, group in groups.items():
            rows = group & stats['occurs']
            for key in ('pq', 'sq', 'rq'):
                # One class after the other, as published; numpy would add in pairs.
                mean = sum(stats[key][rows].tolist()) / rows.sum() if rows.any() else float('nan')
                values[key.upper() + suffix] = float(100 * mean)
        if self.classwise:
            self._log(names, stats)
        return values

    @staticmethod
    def _log(names: Sequence[str], stats: dict[str, np.ndarray]) -> None:
        table = PrettyTable(['Class', 'PQ', 'SQ', 'RQ'])
        for i, name in enumerate(names):
            row = [f'{stats[k][i] * 100:.2f}' if stats['occurs'][i] else '-' for k in ('pq', 'sq')]
            row.append(f'{stats["rq"][i] * 100:.2f}' if stats['occurs'][i] else '-')
            table.add_row([name, *row])
        print_log('\n' + table.get_string(), logger=MMLogger.get_current_instance())
