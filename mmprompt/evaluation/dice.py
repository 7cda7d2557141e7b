"""Dice of one class, for vessels and other thin foregrounds."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmprompt.common.errors import UserError
from mmprompt.registry import METRICS


@METRICS.register_module()
class ForegroundDice(BaseMetric):
    """Dice similarity coefficient of one class, in per cent, in the two usual ways.

    ``Dice`` is 2 |P and T| / (|P| + |T|) with the pixels of all images counted together, as
    MMSegmentation's ``IoUMetric(iou_metrics=['mDice'])`` does it for each class before it takes the
    mean over the classes. ``Dice_mean_of_images`` is the mean of the images' own values, as medical
    papers often report. An image without foreground in truth and prediction has no value and is
    left out of that mean. Counts are integers, so that large data sets lose nothing; NaN stands for
    what is undefined.

    Args:
        foreground: index of the class.
        ignore_index: label of the pixels that count for nothing.
        kwargs: of `mmengine.evaluator.BaseMetric`.

    Raises:
        UserError: a sample lacks label or prediction, they differ in size, or the data set has no
            such class.
    """

    def __init__(self, foreground: int = 1, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(**kwargs)
        self.foreground = foreground
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each image; maps are (1, H, W) or (H, W), torch or numpy."""
        for sample in data_samples:
            predicted, truth = (
                self._map(sample, key).to('cpu') for key in ('pred_sem_seg', 'gt_sem_seg')
            )
            if predicted.shape != truth.shape:
                raise UserError(
                    f'ForegroundDice: expected prediction and label of {_name(sample)} to be of '
                    f'one size, found {tuple(predicted.shape)} and {tuple(truth.shape)}. Load the '
                    f'labels after resizing in the test pipeline.'
                )
            counted = truth != self.ignore_index
            found = (predicted == self.foreground) & counted
            there = (truth == self.foreground) & counted
            self.results.append(tuple(int(m.sum()) for m in (found & there, found, there)))

    def compute_metrics(self, results: list[tuple[int, int, int]]) -> dict[str, float]:
        """Both values of the images' (both, predicted, true) pixels."""
        classes = (self.dataset_meta or {}).get('classes')
        if classes is not None and not 0 <= self.foreground < len(classes):
            raise UserError(
                f'ForegroundDice.foreground: expected the index of one of the {len(classes)} '
                f'classes ({", ".join(classes)}), found {self.foreground}. Correct it.'
            )
        single = [dice for dice in map(_dice, results) if dice == dice]
        return {
            'Dice': round(_dice([sum(counts) for counts in zip(*results)]), 2),
            'Dice_mean_of_images': round(sum(single) / len(single), 2) if single else float('nan'),
        }

    @staticmethod
    def _map(sample: dict, key: str) -> torch.Tensor:
        if sample.get(key) is None:
            raise UserError(
                f'ForegroundDice: expected {key} in the sample of {_name(sample)}, found '
                f'{sorted(sample)}. Labels come from LoadAnnotations in the test pipeline, '
                f'predictions from a segmentor.'
            )
        values = torch.as_tensor(sample[key]['data'])
        return values.reshape(values.shape[-2:])  # (H, W)


def _dice(counts: Sequence[int]) -> float:
    both, predicted, true = counts
    return 200 * both / (predicted + true) if predicted + true else float('nan')


def _name(sample: dict) -> str:
    return str(sample.get('img_path', 'an image'))
