"""MMSegmentation's IoU with a number for each class among the metrics."""

from collections.abc import Sequence

import numpy as np
from mmseg.evaluation import IoUMetric

from mmprompt.evaluation.groups import Groups, read_groups
from mmprompt.registry import METRICS


@METRICS.register_module()
class ClassIoU(IoUMetric):
    """`IoUMetric` that also returns ``IoU.NAME`` in per cent, where it only prints them.

    A class that is neither in the truth nor in a prediction has no IoU and is left out, as it is
    from the mean.

    Args:
        groups: names of classes by the name of a group: also the mean of each group,
            ``mIoU_GROUP``; NaN for one of whose classes there is no pixel.
        kwargs: of `IoUMetric`; mIoU by default.
    """

    def __init__(self, groups: Groups | None = None, **kwargs) -> None:
        super().__init__(**{'iou_metrics': ['mIoU'], **kwargs})
        self.groups = groups

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """The metrics of `IoUMetric`, and one of each class that has pixels and of each group.

        Raises:
            UserError: see `read_groups`.
        """
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        names = self.dataset_meta['classes']
        both, either = (sum(result[i] for result in results).numpy() for i in (0, 1))
        there = either > 0
        ious = 100 * both / np.where(there, either, 1)  # (C,)
        for index in np.flatnonzero(there).tolist():
            metrics[f'IoU.{names[index]}'] = round(float(ious[index]), 2)
        for group, members in read_groups(self.groups, names, 'ClassIoU').items():
            of_group = ious[members & there]
            mean = float(of_group.mean()) if of_group.size else float('nan')
            metrics[f'mIoU_{group}'] = round(mean, 2)
        return metrics
