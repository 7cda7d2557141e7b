"""MMSegmentation's IoU with a number for each class among the metrics."""

from collections.abc import Sequence

from mmseg.evaluation import IoUMetric

from mmprompt.registry import METRICS


@METRICS.register_module()
class ClassIoU(IoUMetric):
    """`IoUMetric` that also returns ``IoU.NAME`` in per cent, where it only prints them.

    A class that is neither in the truth nor in a prediction has no IoU and is left out, as it is
    from the mean.

    Args:
        kwargs: of `IoUMetric`; mIoU by default.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**{'iou_metrics': ['mIoU'], **kwargs})

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """The metrics of `IoUMetric`, and one of each class that has pixels."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        both, either = (sum(result[i] for result in results) for i in (0, 1))
        for name, hit, area in zip(self.dataset_meta['classes'], both.tolist(), either.tolist()):
            if area:
                metrics[f'IoU.{name}'] = round(100 * hit / area, 2)
        return metrics
