"""Which patches belong together: the quantised affinity, and the box around those of a row.

Decoder (A.1) and results (Sec. 4.1) read the affinity alike.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmprompt.common.matching import at_least_float


@torch.no_grad()
def merging_affinity(logits: Tensor, rule: str, valid: Tensor | None = None) -> Tensor:
    """What is compared with the threshold of merging, in [0, 1].

    Args:
        logits: (..., N).
        rule: 'threshold': the sigmoid; 'min-max': that scaled so that the lowest of a row is 0 and
            the highest 1. A row of equal values is 1 everywhere, so the best patch of a row is
            always merged.
        valid: (..., N) bool, the patches that are there, or what can be expanded to it; None: all.

    Returns:
        (..., N), at least float32; 0 for patches that are not there.
    """
    logits = at_least_float(logits)
    if valid is None:
        valid = torch.ones_like(logits, dtype=torch.bool)
    if rule == 'threshold' or not logits.shape[-1]:
        return logits.sigmoid().masked_fill(~valid, 0)
    # Relative to the highest, since sigmoids of very low logits are 0 and those of high ones 1.
    log_probs = logsigmoid(logits)
    highest = log_probs.masked_fill(~valid, -torch.inf).amax(dim=-1, keepdim=True)
    below = -torch.expm1(log_probs - highest)  # 1 - p / p of the highest
    span = below.masked_fill(~valid, 0).amax(dim=-1, keepdim=True)
    scaled = 1 - below / span.clamp(min=torch.finfo(span.dtype).tiny)
    return scaled.masked_fill(~valid, 0)


def high_affinity(logits: Tensor, valid: Tensor, rule: str) -> Tensor:
    """Quantise the affinity: which patches a query takes in (A.1, Sec. 4.1).

    Args:
        logits: (B, M, N).
        valid: (B, N) bool.
        rule: of `merging_affinity`, of which at least 0.5 is high; with 'threshold' all patches
            are if there is none.

    Returns:
        (B, M, N) bool; in every row of an image with patches at least one is True.
    """
    valid = valid[:, None]  # (B, 1, N)
    high = merging_affinity(logits, rule, valid) >= 0.5
    return high | (~high.any(dim=-1, keepdim=True) & valid)


@torch.no_grad()
def boxes_around(boxes: Tensor, chosen: Tensor, nothing: Tensor) -> Tensor:
    """Smallest boxes around the boxes that are chosen.

    Args:
        boxes: (..., N, 4) xyxy.
        chosen: (..., M, N) bool.
        nothing: (4,) the box of a row of which none is.

    Returns:
        (..., M, 4).
    """
    if not boxes.shape[-2]:
        return nothing.to(boxes).expand(*chosen.shape[:-1], 4)
    # One side at a time, so that nothing is four times as large as the affinity.
    x1, y1, x2, y2 = boxes[..., None, :, :].unbind(dim=-1)  # (..., 1, N)
    sides = [torch.where(chosen, side, torch.inf).amin(dim=-1) for side in (x1, y1)]
    sides += [torch.where(chosen, side, -torch.inf).amax(dim=-1) for side in (x2, y2)]
    some = chosen.any(dim=-1, keepdim=True)
    return torch.where(some, torch.stack(sides, dim=-1), nothing.to(boxes))
