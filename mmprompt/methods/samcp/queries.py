"""Queries: one per class from its text, one per patch, and in training denoising ones.

They stand in the order [denoising R | semantic S | instance N]; M = R + S + N (Sec. 3.2.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmprompt.methods.samcp.layers import Linear, cxcywh_to_xyxy, stacked
from mmprompt.methods.samcp.structures import PatchFeatures
from mmprompt.registry import MODELS


class SemanticQueries(nn.Module):
    """Prompt I: a query for each class, from the embedding of its text (e^S in the paper).

    Args:
        text_dim: of the embeddings.
        dim: D.
    """

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.content = nn.Sequential(Linear(text_dim, dim), nn.LayerNorm(dim))
        self.box = Linear(text_dim, 4)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(S, text_dim) rows of unit variance -> content (S, D) and normalised boxes (S, 4)."""
        return self.content(text), cxcywh_to_xyxy(self.box(text).sigmoid())


class Noised(NamedTuple):
    """Denoising queries of one image or, with B in front, of a batch; see `SAMCPDenoising`.

    Attributes:
        labels: (R,) column of the class that the query is told, right or wrong.
        boxes: (R, 4) normalised, moved.
        units: (R,) row of the unit in the image's ``gt_units``.
        positive: (R,) bool.
        group: (R,) number of the group; -1 in padding.
    """

    labels: Tensor
    boxes: Tensor
    units: Tensor
    positive: Tensor
    group: Tensor

    @classmethod
    def none(cls, boxes: Tensor) -> 'Noised':
        """No queries, for a batch of patches with boxes (B, N, 4)."""
        whole = boxes.new_zeros(len(boxes), 0, dtype=torch.long)
        return cls(whole, boxes[:, :0], whole, whole.bool(), whole)


@MODELS.register_module()
class SAMCPDenoising(nn.Module):
    """DINO's contrastive denoising queries, made from the true instances of an image.

    An image with K instances gets max(1, num_queries // K) groups of 2 K queries: in each group
    every instance once as a positive, whose corners move by less than half of its size times
    `box_noise`, and once as a negative, whose corners move by half to all of its size times that.
    Corners that pass each other give a box without extent along that axis, in the middle between
    them, as in DINO, whose inverse sigmoid cuts off negative sizes; boxes stay in the image.
    With a chance of `label_noise` / 2 a query is told a random class.

    What is drawn for an image depends on the ``noise_seed`` that came with its units alone, so that
    it is the same in any batch and in any number of processes; without one, on torch's generator.

    Args:
        dim: D.
        num_classes: T.
        num_queries: see above.
        label_noise: DINO's; 0.5 changes a quarter of the labels.
        box_noise: DINO's.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        num_queries: int = 300,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries = num_classes, num_queries
        self.label_noise, self.box_noise = label_noise, box_noise
        self.content = nn.Embedding(num_classes, dim)

    def _load_from_state_dict(self, state: dict, prefix: str, *rest) -> None:
        """Leave out the embeddings of other classes than these: only training reads them."""
        key, own = f'{prefix}content.weight', self.content.weight
        found = state.get(key)
        if found is not None and len(found) != len(own) and found.shape[1:] == own.shape[1:]:
            print_log(
                f'{key}: the weights were trained for {len(found)} thing classes, the model has '
                f'{len(own)}. Denoising queries, which only training reads, stay as they are.',
                logger='current',
            )
            state[key] = own.detach().clone()
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, units: Sequence[InstanceData], columns: Tensor, sizes: Tensor) -> Noised:
        """Draw the queries of a batch; R is 0 if no image has an instance of a thing class.

        Args:
            units: true units of each image, boxes in pixels; metainfo ``noise_seed`` if known.
            columns: (C,) column of each class among the things, -1 of stuff.
            sizes: (B, 2) height and width of each image.
        """
        drawn = []
        for unit, size in zip(units, sizes):
            labels = columns[unit.labels]
            rows = (unit.is_instance & (labels >= 0)).nonzero()[:, 0]  # (K,)
            boxes = unit.bboxes[rows].to(sizes) / size.flip(0).repeat(2)
            known = dict(seed=unit.noise_seed) if 'noise_seed' in unit else {}
            drawn.append(self.draw(rows, labels[rows], boxes, **known))
        *fields, group = zip(*drawn)
        return Noised(*(stacked(field) for field in fields), stacked(group, value=-1))

    def draw(self, units: Tensor, labels: Tensor, boxes: Tensor, seed: int | None = None) -> Noised:
        """Draw the queries of one image.

        Args:
            units: (K,) rows of ``gt_units``.
            labels: (K,) columns of their classes.
            boxes: (K, 4) normalised.
            seed: of what is drawn; None: torch's generator goes on.
        """
        source = dict(device=units.device)
        if seed is not None:
            source['generator'] = torch.Generator(units.device).manual_seed(seed)
        count = len(units)
        groups = max(1, self.num_queries // count) if count else 0
        index = torch.arange(2 * count * groups, device=units.device)  # (R,)
        which, part = index % max(count, 1), index // max(count, 1)
        positive = part % 2 == 0

        told = labels[which]
        flipped = torch.rand(len(index), **source) < self.label_noise / 2
        other = torch.randint(max(self.num_classes, 1), told.shape, **source)
        told = torch.where(flipped, other, told)

        box = boxes[which]  # (R, 4)
        half = (box[:, 2:] - box[:, :2]).repeat(1, 2) / 2
        sign = torch.randint(2, box.shape, **source) * 2 - 1
        moved = torch.rand(box.shape, dtype=box.dtype, **source) + ~positive[:, None]
        box = (box + sign * moved * half * self.box_noise).clamp(0, 1)
        low, high = box.split(2, dim=1)
        middle = (low + high) / 2
        box = torch.cat([torch.minimum(low, middle), torch.maximum(high, middle)], dim=1)
        return Noised(told, box, units[which], positive, part // 2)


@dataclass
class QuerySet:
    """What the decoder starts from.

    Attributes:
        content: (B, M, D).
        boxes: (B, M, 4) normalised; their embedding is the position.
        valid: (B, M) bool.
        visible: (B, M, M) bool: which query (column) a query (row) sees in self-attention.
        counts: R, S, N.
    """

    content: Tensor
    boxes: Tensor
    valid: Tensor
    visible: Tensor
    counts: tuple[int, int, int]

    @classmethod
    def join(
        cls,
        semantic: tuple[Tensor, Tensor],
        patches: PatchFeatures,
        noised: Noised,
        noised_content: Tensor,
    ) -> 'QuerySet':
        """Put the kinds one behind the other; patches are instance queries as they are (PasQ).

        Args:
            semantic: content (S, D) and boxes (S, 4), the same for every image.
            patches: of the batch.
            noised: of the batch, (B, R); outside of training R is 0.
            noised_content: (B, R, D).
        """
        batch, most = patches.valid.shape
        counts = noised.group.shape[1], len(semantic[0]), most
        content, boxes = (part.expand(batch, -1, -1) for part in semantic)  # (B, S, .)
        asked = patches.valid.new_ones(batch, counts[1])
        return cls(
            torch.cat([noised_content, content, patches.content], dim=1),
            torch.cat([noised.boxes, boxes, patches.boxes], dim=1),
            torch.cat([noised.group >= 0, asked, patches.valid], dim=1),
            visible_queries(noised.group, counts[1], patches.valid),
            counts,
        )


def visible_queries(group: Tensor, num_semantic: int, valid: Tensor) -> Tensor:
    """Which query sees which in self-attention.

    An instance query sees instance queries; a semantic query itself and instance queries, so that
    a class is found alike whatever other classes are asked for; a denoising query its own group,
    whose truths it must not tell to anyone, and all others.

    Args:
        group: (B, R) of denoising queries, -1 in padding.
        num_semantic: S.
        valid: (B, N) of instance queries.

    Returns:
        (B, M, M) bool, row sees column; every row sees itself.
    """
    batch, noised = group.shape
    first = noised + num_semantic  # instance query
    itself = torch.eye(first + valid.shape[1], dtype=torch.bool, device=group.device)
    visible = itself.repeat(batch, 1, 1)
    visible[:, :, first:] |= valid[:, None]
    visible[:, :noised, noised:first] = True
    visible[:, :noised, :noised] |= (group[:, :, None] == group[:, None]) & (group >= 0)[:, None]
    return visible
