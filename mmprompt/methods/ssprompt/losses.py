"""The loss of SSPrompt on semantic labels."""

from torch import Tensor, nn

from mmprompt.foundation.seem.criterion import DENSE_LOSSES
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
