"""Masks with class scores -> semantic, panoptic and instance results. Pure tensor functions.

Notation: B images, Q queries, C classes (the last of C+1 columns is "no object"), (H, W) pixels.
The rules are those of the published SEEM inference (X-Decoder, Mask2Former).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class PanopticResult(NamedTuple):
    """One image: `seg_map` (H, W) int64 with 0 = unlabelled; S segments with ids 1..S."""

    seg_map: Tensor
    ids: Tensor  # (S,)
    labels: Tensor  # (S,)
    scores: Tensor  # (S,) best class score among the queries merged into the segment


class InstanceResult(NamedTuple):
    """One image, K instances in falling order of score."""

    masks: Tensor  # (K, H, W) bool
    labels: Tensor  # (K,)
    scores: Tensor  # (K,)


def semantic_scores(logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Class score of every pixel, S_c = sum_q softmax(logits_q)_c * sigmoid(mask_q).

    Args:
        logits: (B, Q, C+1), no-object last; it is dropped after the softmax.
        mask_logits: (B, Q, h, w).

    Returns:
        (B, C, h, w), non-negative; neither a logit nor normalised over c.
    """
    probs = logits.softmax(dim=-1)[..., :-1]  # (B, Q, C)
    return torch.einsum('bqc,bqhw->bchw', probs, mask_logits.sigmoid())


def panoptic(
    logits: Tensor,
    mask_logits: Tensor,
    thing_classes: Sequence[int],
    score_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> PanopticResult:
    """One segment per pixel of one image.

    Queries whose best class is an object above `score_threshold` compete for each pixel by
    score * sigmoid(mask). A query is dropped if it won less than `overlap_threshold` of its own
    area (sigmoid >= 0.5). Stuff of one class is merged into one segment.

    Args:
        logits: (Q, C+1), no-object last.
        mask_logits: (Q, H, W) at the size of the answer.
        thing_classes: class indices that are counted one by one; all others are stuff.
        score_threshold: 0.8 in SEEM v0 and v1, 0.4 in its demo.
        overlap_threshold: won pixels over own area.
    """
    num_classes = logits.shape[-1] - 1
    scores, labels = logits.softmax(dim=-1).max(dim=-1)  # (Q,)
    keep = (labels != num_classes) & (scores > score_threshold)
    scores, labels = scores[keep], labels[keep]
    empty = mask_logits.new_zeros(mask_logits.shape[-2:], dtype=torch.long)
    if len(scores) == 0:
        return PanopticResult(empty, labels, labels, scores)

    probs = mask_logits[keep].sigmoid()  # (K, H, W)
    solid = probs >= 0.5
    winner = (scores[:, None, None] * probs).argmax(dim=0)  # (H, W)
    mine = solid.gather(0, winner[None])[0]  # the winner itself covers the pixel
    won = torch.bincount(winner.flatten(), minlength=len(scores))
    visible = torch.bincount(winner[mine], minlength=len(scores))
    area = solid.flatten(1).sum(dim=1)
    valid = (visible > 0) & (won >= overlap_threshold * area)

    things = set(int(c) for c in thing_classes)
    segment_of = torch.zeros_like(labels)  # (K,) id of the segment a query ends up in
    stuff: dict[int, int] = {}
    members: list[list[int]] = []
    for query in valid.nonzero()[:, 0].tolist():
        label = int(labels[query])
        if label in stuff:
            index = stuff[label]
            members[index].append(query)
        else:
            index = len(members)
            members.append([query])
            if label not in things:
                stuff[label] = index
        segment_of[query] = index + 1
    if not members:
        return PanopticResult(empty, labels[:0], labels[:0], scores[:0])
    first = torch.tensor([m[0] for m in members], device=labels.device)
    best = torch.stack([scores[m].max() for m in members])
    ids = torch.arange(1, len(members) + 1, device=labels.device)
    return PanopticResult(segment_of[winner] * mine, ids, labels[first], best)


def instances(
    logits: Tensor,
    mask_logits: Tensor,
    top_k: int = 100,
    thing_classes: Sequence[int] | None = None,
) -> InstanceResult:
    """The `top_k` best (query, class) pairs of one image as scored binary masks.

    The score is the class probability times the mean of sigmoid(mask) inside the mask
    (logit > 0). A query may answer for several classes.

    Args:
        logits: (Q, C+1), no-object last.
        mask_logits: (Q, H, W) at the size of the answer.
        top_k: kept pairs, before stuff is removed.
        thing_classes: if given, pairs of other classes are removed.
    """
    num_classes = logits.shape[-1] - 1
    probs = logits.softmax(dim=-1)[:, :-1].flatten()  # (Q*C,)
    scores, index = probs.topk(min(top_k, probs.numel()))
    query = index.div(num_classes, rounding_mode='floor')
    labels = index % num_classes
    if thing_classes is not None:
        wanted = torch.as_tensor(list(thing_classes), device=labels.device, dtype=labels.dtype)
        keep = torch.isin(labels, wanted)
        scores, query, labels = scores[keep], query[keep], labels[keep]

    used, slot = query.unique(return_inverse=True)  # a query's mask is scored once
    logit = mask_logits[used]
    binary = logit > 0  # (U, H, W)
    area = binary.flatten(1).sum(dim=1)
    inside = (logit.sigmoid() * binary).flatten(1).sum(dim=1) / (area + 1e-6)
    scores = scores * inside[slot]
    order = scores.argsort(descending=True, stable=True)
    return InstanceResult(binary[slot[order]], labels[order], scores[order])
