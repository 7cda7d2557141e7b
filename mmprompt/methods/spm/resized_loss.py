"""Cross-entropy of a small map against large labels, without the resized map of all classes.

150 classes at 512x512 pixels are 157 MB for one interim map of one image, several times over with
what the graph keeps, and SPM has five maps. Resizing is linear, so a stretch of rows can be
resized, scored and forgotten, and its gradient taken back to the small map at once.
"""

import torch
from mmseg.models import CrossEntropyLoss
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Scores that are held at a time: what stays in a processor's cache, and what keeps a GPU busy.
SCORES = dict(cpu=1 << 20)
SCORES_ELSEWHERE = 1 << 24


def resized_loss(loss: nn.Module, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The loss of a map that is resized to its labels (bilinear, corners not aligned).

    MMSegmentation's mean cross-entropy over classes of equal weight takes the way of this module,
    equal but for rounding; every other loss is given the resized logits.

    Args:
        loss: called as ``loss(logits, labels, ignore_index=…)``.
        logits: (B, s, h, w).
        labels: (B, H, W), whole numbers.
        ignore_index: label of pixels that do not count.
    """
    if not is_plain(loss):
        logits = F.interpolate(logits, size=labels.shape[-2:], mode='bilinear', align_corners=False)
        return loss(logits, labels, ignore_index=ignore_index)
    total = _ResizedCrossEntropy.apply(logits, labels, ignore_index)
    count = labels.numel()
    if loss.avg_non_ignore:
        count = (labels != ignore_index).sum().to(total.dtype)
    # Added as MMSegmentation adds it, where a batch may have no pixel that counts.
    return loss.loss_weight * total / (count + torch.finfo(torch.float32).eps)


def is_plain(loss: nn.Module) -> bool:
    """Tell whether a loss is a mean of cross-entropies over classes of equal weight."""
    return (
        type(loss) is CrossEntropyLoss
        and not (loss.use_sigmoid or loss.use_mask)
        and loss.class_weight is None
        and loss.reduction == 'mean'
    )


class _ResizedCrossEntropy(torch.autograd.Function):
    """Sum over pixels; the gradient is made in the forward, where the scores are at hand."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        precise = torch.float64 if logits.dtype == torch.float64 else torch.float32
        with torch.autocast(logits.device.type, enabled=False):
            small = logits.detach().to(precise)
            total, gradient = _summed(small, labels, ignore_index, ctx.needs_input_grad[0])
        ctx.dtype = logits.dtype
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * slope).to(ctx.dtype), None, None


def _summed(
    logits: Tensor, labels: Tensor, ignore_index: int, slope_wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Sum of -log softmax of the labels, and its gradient (B, s, h, w) if it is wanted."""
    classes, (h, w), (height, width) = logits.shape[1], logits.shape[2:], labels.shape[1:]
    down, across = _weights(h, height), _weights(w, width).to(logits)  # (H, h), (W, w)
    rows = max(1, SCORES.get(logits.device.type, SCORES_ELSEWHERE) // (classes * width))
    stretches = [_used(part) for part in down.split(rows)]
    down = down.to(logits)
    total = logits.new_zeros(())
    gradient = torch.empty_like(logits) if slope_wanted else None
    for index, (picture, label) in enumerate(zip(logits, labels)):
        wide = picture.transpose(0, 1) @ across.T  # (h, s, W)
        slope = torch.zeros_like(wide) if slope_wanted else None
        for part, target, used in zip(down.split(rows), label.split(rows), stretches):
            weights = part[:, used]  # (n, k): these rows are made of k rows
            scores = (weights @ wide[used].flatten(1)).unflatten(1, (classes, width))
            total += _score(scores, target, ignore_index, slope_wanted)
            if slope_wanted:
                slope[used].view(-1, classes * width).addmm_(weights.T, scores.flatten(1))
        if slope_wanted:
            gradient[index] = (slope @ across).transpose(0, 1)
    return total, gradient


def _weights(source: int, target: int) -> Tensor:
    """Shares (target, source) of the old cells in each new one, as `F.interpolate` has them."""
    rows = torch.eye(source, dtype=torch.float64)[None]
    return F.interpolate(rows, size=target, mode='linear', align_corners=False)[0].T


def _used(weights: Tensor) -> slice:
    """The stretch of columns outside which a matrix is zero."""
    columns = weights.ne(0).any(dim=0).nonzero().flatten()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def _score(scores: Tensor, labels: Tensor, ignore_index: int, slope_wanted: bool) -> Tensor:
    """Sum over pixels; `scores` (n, s, W) become the gradient if it is wanted, else anything.

    Args:
        scores: logits.
        labels: (n, W).
    """
    left_out = labels == ignore_index
    labels = labels.masked_fill(left_out, 0)[:, None]  # (n, 1, W)
    own = scores.gather(1, labels)
    highest = scores.amax(dim=1, keepdim=True)
    exponents = scores.sub_(highest).exp_()
    sums = exponents.sum(dim=1, keepdim=True)
    losses = (sums.log() + highest - own)[:, 0].masked_fill(left_out, 0)
    if slope_wanted:
        counted = (~left_out)[:, None].to(scores.dtype)
        exponents.mul_(counted / sums).scatter_add_(1, labels, -counted)
    return losses.sum()
