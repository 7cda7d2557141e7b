"""The losses of SSPrompt: on semantic labels, and on masks with classes."""

from torch import Tensor, nn

from mmprompt.common.matching import MaskTargets
from mmprompt.foundation.seem import SEEMOutput
from mmprompt.foundation.seem.criterion import DENSE_LOSSES, SetCriterion, picked_nll
from mmprompt.registry import MODELS


@MODELS.register_module()
class SSPromptSemanticLoss(nn.Module):
    """Cross-entropy of the semantic scores S, which are neither logits nor normalised.

    The paper says "cross-entropy" only. Two readings are offered; the mean is over labelled pixels.

    Args:
        mode: 'nll' is the negative logarithm of S / sum S; 'ce' takes S as logits.
        ignore_index: label of pixels that do not count.
        loss_weight: factor.
        loss_name: key in the dict of losses; mmengine sums the keys that hold "loss".
    """

    def __init__(
        self,
        mode: str = 'nll',
        ignore_index: int = 255,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_sem',
    ) -> None:
        super().__init__()
        if mode not in DENSE_LOSSES:
            raise ValueError(f'mode must be one of {sorted(DENSE_LOSSES)}, found {mode!r}.')
        self.mode = mode
        self.ignore_index = ignore_index
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            scores: S, (B, C, H, W), at the size of the labels.
            label: (B, H, W), class indices or `ignore_index`.

        Returns:
            A scalar; zero, with a graph, if no pixel is labelled.
        """
        # Half precision has no room for the logarithm of a small share.
        scores = scores.float() if scores.element_size() < 4 else scores
        loss = DENSE_LOSSES[self.mode](scores, label, self.ignore_index)
        return self.loss_weight * loss

    def of_picked(self, chosen: Tensor, total: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """The loss in mode 'nll', of scores that were picked before.

        Args:
            chosen: (...) score of the label; anything where that is `ignore_index`.
            total: (...) sum of the scores of all classes.
            label: (...).
            num_classes: C.
        """
        valid = label != self.ignore_index
        return self.loss_weight * picked_nll(chosen, total, valid, num_classes)


@MODELS.register_module()
class SSPromptMaskLoss(SetCriterion):
    """Cross-entropy of classes and binary cross-entropy of masks, on matched queries.

    "Multi-category cross-entropy for classes and binary cross-entropy for masks" (Section 4.2);
    everything else is as SEEM was trained: Hungarian matching, of every prediction of the decoder.

    Args:
        class_weight: factor of the class loss.
        bce_weight: factor of the mask loss, whose mean is over points and then over masks.
        dice_weight: factor of a Dice loss.
        no_object_weight: of the queries without a mask in the class loss.
        num_aux: how many of the earlier predictions get a loss too, the last ones first; None is
            all of them.
        num_points: points per mask, and per image in the matching.
        grid: fixed points for the mask loss instead, (rows, columns) or 'native' for all cells of
            the stride-4 maps.
        matcher: arguments of `HungarianMatcher`: weights of its cost and a `grid` of its own.
        ignore_index: the label that stands for none.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        bce_weight: float = 5.0,
        dice_weight: float = 0.0,
        no_object_weight: float = 0.1,
        num_aux: int | None = None,
        num_points: int = 12544,
        grid: tuple[int, int] | str | None = None,
        matcher: dict | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(
            class_weight=class_weight,
            bce_weight=bce_weight,
            dice_weight=dice_weight,
            no_object_weight=no_object_weight,
            num_aux=num_aux,
            num_points=num_points,
            grid=grid,
            matcher=matcher,
            ignore_index=ignore_index,
        )

    def forward(self, output: SEEMOutput, targets: MaskTargets) -> dict[str, Tensor]:
        """Losses by name, those of weight 0 left out; see `SetCriterion`."""
        names = [n for n, weight in zip(('class', 'bce', 'dice'), self.weights) if weight]
        losses = super().forward(output, targets)
        return {k: v for k, v in losses.items() if k.rpartition('_')[2] in names}
