"""Masks with class scores -> semantic, panoptic and instance results. Pure tensor functions.

Notation: B images, Q queries, C classes (the last of C+1 columns is "no object"), (H, W) pixels.
The rules are those of the published SEEM inference (X-Decoder, Mask2Former). What takes masks of
one image takes a tensor or `upsampling.UpsampledMaps`, and works on a tile at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmprompt.common.upsampling import Maps, Tile, as_maps


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


def semantic_tiles(logits: Tensor, mask_logits: Tensor | Maps) -> Iterator[Tile]:
    """`semantic_scores` of one image: (rows, columns, scores (C, rows, columns)) of every tile.

    Args:
        logits: (Q, C+1), no-object last.
        mask_logits: (Q, H, W) at the size of the answer.
    """
    maps = as_maps(mask_logits)
    probs = None
    for rows, columns, values in maps.tiles(logits.shape[-1]):
        if probs is None:
            probs = logits.to(values).softmax(dim=-1)[:, :-1].t().contiguous()  # (C, Q)
        with torch.autocast(values.device.type, enabled=False):
            scores = probs @ values.sigmoid().flatten(1)  # (C, rows * columns)
        yield rows, columns, scores.unflatten(1, values.shape[1:])


def label_map(
    tiles: Iterable[Tile], size: tuple[int, int], device: torch.device, scores: Tensor | None = None
) -> Tensor:
    """The class of highest score, (H, W) int64, from tiles of scores.

    Args:
        tiles: of `semantic_tiles` or of `UpsampledMaps`.
        size: (H, W).
        device: of the answer.
        scores: if given, (C, H, W) that is filled with the scores.
    """
    labels = torch.empty(size, dtype=torch.long, device=device)
    for rows, columns, values in tiles:
        labels[rows, columns] = _winner(values)
        if scores is not None:
            scores[:, rows, columns] = values
    return labels


def semantic(logits: Tensor, mask_logits: Tensor | Maps) -> Tensor:
    """Label map (H, W) int64 of one image: the class of highest score S at every pixel.

    Args:
        logits: (Q, C+1), no-object last; it never wins.
        mask_logits: (Q, H, W) at the size of the answer.
    """
    maps = as_maps(mask_logits)
    return label_map(semantic_tiles(logits, maps), maps.shape[1:], maps.device)


def semantic_of_many(
    logits: Sequence[Tensor], mask_logits: Tensor | Maps
) -> list[tuple[Tensor, Tensor]]:
    """`semantic` of one image for K class lists whose masks are the same, brought to size once.

    Args:
        logits: K tensors (Q, C_k+1), no-object last.
        mask_logits: (Q, H, W) at the size of the answer.

    Returns:
        For each list the label map (H, W) int64, and (C_k,) the mean score S of each class over the
        pixels that it won, 0 where it won none.
    """
    maps = as_maps(mask_logits)
    probs = [each.softmax(dim=-1)[:, :-1].t().contiguous() for each in logits]  # K times (C_k, Q)
    labels = [torch.empty(maps.shape[1:], dtype=torch.long, device=maps.device) for _ in probs]
    totals = [torch.zeros(2, len(p), dtype=torch.double, device=maps.device) for p in probs]
    for rows, columns, values in maps.tiles(max(len(p) for p in probs)):
        with torch.autocast(values.device.type, enabled=False):
            inside = values.sigmoid().flatten(1)  # (Q, rows * columns)
            for prob, label, total in zip(probs, labels, totals):
                best, winner = (prob.to(inside) @ inside).max(dim=0)
                label[rows, columns] = winner.unflatten(0, values.shape[1:])
                total[0].index_add_(0, winner, best.double())
                total[1] += torch.bincount(winner, minlength=len(prob))
    return [(label, total[0] / total[1].clamp(min=1)) for label, total in zip(labels, totals)]


def _winner(values: Tensor) -> Tensor:
    # On a CPU several times as fast as argmax along a dimension that is not the last.
    return values.max(dim=0).indices


def panoptic(
    logits: Tensor,
    mask_logits: Tensor | Maps,
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
    maps = as_maps(mask_logits)
    scores, labels = logits.softmax(dim=-1).max(dim=-1)  # (Q,)
    keep = (labels != num_classes) & (scores > score_threshold)
    scores, labels = scores[keep], labels[keep]
    seg_map = torch.zeros(maps.shape[1:], dtype=torch.long, device=maps.device)
    if len(scores) == 0:
        return PanopticResult(seg_map, labels, labels, scores)

    count = len(scores)
    won, visible, area = torch.zeros(3, count, dtype=torch.long, device=maps.device)
    for rows, columns, values in maps[keep].tiles():
        probs = values.sigmoid()  # (K, rows, columns)
        solid = probs >= 0.5
        winner = _winner(scores[:, None, None] * probs)
        mine = solid.gather(0, winner[None])[0]  # the winner itself covers the pixel
        won += torch.bincount(winner.flatten(), minlength=count)
        visible += torch.bincount(winner[mine], minlength=count)
        area += solid.flatten(1).sum(dim=1)
        seg_map[rows, columns] = (winner + 1) * mine  # a query's number, 0 for nobody
    valid = (visible > 0) & (won >= overlap_threshold * area)
    segment_of, members = _segments(valid, labels, thing_classes)
    first = labels.new_tensor([m[0] for m in members])
    best = torch.stack([scores[m].max() for m in members]) if members else scores[:0]
    ids = torch.arange(1, len(members) + 1, device=labels.device)
    return PanopticResult(segment_of[seg_map], ids, labels[first], best)


def _segments(
    valid: Tensor, labels: Tensor, thing_classes: Sequence[int]
) -> tuple[Tensor, list[list[int]]]:
    """Segment (K+1,) of "nobody" and of each query, 0 for none; and the queries of each segment."""
    things = {int(c) for c in thing_classes}
    segment_of = labels.new_zeros(len(labels) + 1)
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
        segment_of[query + 1] = index + 1
    return segment_of, members


def instances(
    logits: Tensor,
    mask_logits: Tensor | Maps,
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
    maps = as_maps(mask_logits)[used]
    area = torch.zeros(len(used), dtype=torch.long, device=maps.device)
    inside = torch.zeros(len(used), dtype=torch.double, device=maps.device)
    for _, _, values in maps.tiles():
        binary = values > 0  # (U, rows, columns)
        area += binary.flatten(1).sum(dim=1)
        inside += (values.sigmoid() * binary).flatten(1).sum(dim=1)
    scores = scores * (inside / (area + 1e-6)).to(scores)[slot]
    order = scores.argsort(descending=True, stable=True)
    # A second pass: to keep the masks of the first would take twice the memory of the answer.
    masks = torch.empty((len(order), *maps.shape[1:]), dtype=torch.bool, device=maps.device)
    for rows, columns, values in maps.tiles(len(order)):
        masks[:, rows, columns] = (values > 0)[slot[order]]
    return InstanceResult(masks, labels[order], scores[order])
