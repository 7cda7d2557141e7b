"""COCO average precision of instance masks and boxes, by pycocotools, without annotation files."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable

from mmprompt.common.errors import UserError
from mmprompt.evaluation.groups import Groups, read_groups
from mmprompt.registry import METRICS

STATS = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')
BOX_STATS = tuple(f'{name}_det' for name in STATS)


def _array(value) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, 'detach') else np.asarray(value)


def encode_masks(masks: np.ndarray) -> list[dict]:
    """(N, H, W) bool -> N run-length codes."""
    from pycocotools import mask as coco_mask

    if len(masks) == 0:
        return []
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def xywh_boxes(instances, codes: list[dict]) -> np.ndarray:
    """Boxes (N, 4) float64 as COCO writes them: `bboxes` (xyxy) if given, else those of masks.

    Args:
        instances: with or without `bboxes` (N, 4), x2 and y2 behind the last pixel.
        codes: run-length codes of their N masks.
    """
    from pycocotools import mask as coco_mask

    if 'bboxes' in instances:
        boxes = np.array(_array(instances['bboxes']), np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes
    return coco_mask.toBbox(codes).reshape(-1, 4) if codes else np.zeros((0, 4))


def _truth_rows(result: dict, image: int, boxes: bool, first_id: int) -> list[dict]:
    from pycocotools import mask as coco_mask

    rows = []
    for code, label, crowd in zip(result['truth'], result['labels'], result['crowd']):
        row = dict(id=first_id + len(rows), image_id=image, category_id=int(label) + 1)
        row |= dict(segmentation=code, area=float(coco_mask.area(code)), iscrowd=int(crowd))
        if boxes:
            row['bbox'] = result['truth_boxes'][len(rows)].tolist()
        rows.append(row)
    return rows


def _found_rows(result: dict, image: int, boxes: bool) -> list[dict]:
    # The library takes the size of what was found from its box wherever it has one.
    key, shapes = ('bbox', 'found_boxes') if boxes else ('segmentation', 'found')
    return [
        dict(image_id=image, category_id=int(label) + 1, score=float(score))
        | {key: shape.tolist() if boxes else shape}
        for shape, label, score in zip(result[shapes], result['found_labels'], result['scores'])
    ]


@METRICS.register_module()
class InstanceAP(BaseMetric):
    """AP over IoU 0.50 to 0.95, AP50, AP75 and AP by size, in percent; NaN where undefined.

    Reads `pred_instances` (`masks`, `labels`, `scores`) from each sample. The truth is
    `gt_instances` (`masks`, `labels`, optional `is_crowd`) if present, else the thing segments of
    `gt_panoptic_seg` and `gt_segments` as `PackPanopticInputs` writes them.
    This is COCO's measure; that of the Cityscapes server ignores small objects and void regions.

    With `boxes` the same of boxes is added under the names `AP_det`, `AP50_det` and so on. A box is
    the `bboxes` of `pred_instances` and of `gt_instances` where these have them (xyxy in pixels of
    the masks), else the tight one of the mask. As in COCO a true object's size is that of its mask.

    Args:
        max_dets: most predictions per image that count.
        classwise: also log AP and AP50 per class.
        boxes: also measure boxes.
        groups: names of classes by the name of a group: also all values over the classes of each
            group alone, `AP_GROUP`, `AP50_GROUP`, `AP_det_GROUP` and so on.
        collect_device, prefix: as of `mmengine.BaseMetric`.
    """

    def __init__(
        self,
        max_dets: int = 100,
        classwise: bool = True,
        boxes: bool = False,
        groups: Groups | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.max_dets = max_dets
        self.classwise = classwise
        self.boxes = boxes
        self.groups = groups

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Encode the masks of a batch; only codes are kept and exchanged between processes."""
        for sample in data_samples:
            if 'pred_instances' not in sample:
                raise UserError(
                    f"InstanceAP: expected 'pred_instances' in every sample, found "
                    f'{sorted(sample)}. Set instances=True in the test_cfg of the model.'
                )
            found = sample['pred_instances']
            masks, labels, crowd = self._truth(sample)
            result = dict(
                size=masks.shape[1:],
                truth=encode_masks(masks),
                labels=labels,
                crowd=crowd,
                found=encode_masks(_array(found['masks'])),
                found_labels=_array(found['labels']),
                scores=_array(found['scores']),
            )
            if self.boxes:
                truth = sample['gt_instances'] if 'gt_instances' in sample else {}
                own = truth if 'masks' in truth else {}
                result['truth_boxes'] = xywh_boxes(own, result['truth'])
                result['found_boxes'] = xywh_boxes(found, result['found'])
            self.results.append(result)

    @staticmethod
    def _truth(sample: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (N, H, W), labels (N,) and crowd flags (N,)."""
        if 'gt_instances' in sample and 'masks' in sample['gt_instances']:
            truth = sample['gt_instances']
            labels = _array(truth['labels'])
            crowd = truth['is_crowd'] if 'is_crowd' in truth else np.zeros(len(labels))
            return _array(truth['masks']), labels, _array(crowd).astype(bool)
        if 'gt_segments' not in sample or 'gt_panoptic_seg' not in sample:
            raise UserError(
                f"InstanceAP: expected 'gt_instances', or 'gt_panoptic_seg' with 'gt_segments', in "
                f'every sample, found {sorted(sample)}. Add LoadCityscapesPanoptic and '
                f'PackPanopticInputs to the test pipeline.'
            )
        segments = sample['gt_segments']
        things = _array(segments['is_thing']).astype(bool)
        ids = _array(segments['ids'])[things]
        masks = _array(sample['gt_panoptic_seg']['data']) == ids[:, None, None]
        return masks, _array(segments['labels'])[things], _array(segments['is_crowd'])[things]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate all images at once.

        Raises:
            UserError: see `read_groups`.
        """
        names = self.dataset_meta['classes']
        groups = {'': np.ones(len(names), bool)}
        for name, members in read_groups(self.groups, names, 'InstanceAP').items():
            groups[f'_{name}'] = members
        values = {}
        for stats, kind in ((STATS, 'segm'), (BOX_STATS, 'bbox'))[: 1 + self.boxes]:
            precision = self._precision(results, kind)
            for suffix, members in groups.items():
                found = _summary(precision[:, :, members])
                values |= {f'{stat}{suffix}': value for stat, value in zip(stats, found)}
        return values

    def _precision(self, results: list[dict], kind: str) -> np.ndarray:
        """Precision of masks ('segm') or boxes ('bbox'), (IoU, recall, class, size).

        Sizes are all, small, medium and large; -1 marks what is undefined.
        """
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        names = self.dataset_meta['classes']
        truth, found = self._datasets(results, len(names), kind == 'bbox')
        if not truth['annotations'] or not found:
            # The library cannot be asked: nothing was found (0), or nothing could be (-1).
            there = {row['category_id'] - 1 for row in truth['annotations']}
            precision = np.full((10, 1, len(names), 4), -1.0)
            precision[:, :, sorted(there)] = 0
            return precision
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = truth
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(found), kind)
            # The summary reads the last entry.
            evaluation.params.maxDets = [1, 10, self.max_dets]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval['precision'][..., -1]  # (IoU, recall, class, size)
        if self.classwise:
            self._log(names, precision, '' if kind == 'segm' else '_det')
        return precision

    @staticmethod
    def _datasets(results: list[dict], num_classes: int, boxes: bool) -> tuple[dict, list[dict]]:
        """What COCO's files of truth and of results would hold."""
        truth, found = [], []
        for image, result in enumerate(results, start=1):
            truth += _truth_rows(result, image, boxes, len(truth) + 1)
            found += _found_rows(result, image, boxes)
        images = [
            dict(id=i, height=int(r['size'][0]), width=int(r['size'][1]))
            for i, r in enumerate(results, start=1)
        ]
        categories = [dict(id=i + 1, name=str(i)) for i in range(num_classes)]
        return dict(info={}, images=images, categories=categories, annotations=truth), found

    @staticmethod
    def _log(names: Sequence[str], precision: np.ndarray, suffix: str) -> None:
        table = PrettyTable(['Class', f'AP{suffix}', f'AP50{suffix}'])
        for i, name in enumerate(names):
            values = precision[:, :, i, 0]
            if (values > -1).any():
                table.add_row([name, f'{_mean(values):.2f}', f'{_mean(values[:1]):.2f}'])
        print_log('\n' + table.get_string(), logger=MMLogger.get_current_instance())


def _summary(precision: np.ndarray) -> list[float]:
    """`STATS` of some classes' precision (IoU, recall, class, size)."""
    every = precision[..., 0]
    by_size = [precision[..., size] for size in (1, 2, 3)]
    return [_mean(part) for part in (every, every[:1], every[5:6], *by_size)]


def _mean(precision: np.ndarray) -> float:
    """Percent; -1 marks what is undefined, e.g. a class that never occurs."""
    valid = precision[precision > -1]
    return float(valid.mean() * 100) if valid.size else float('nan')
