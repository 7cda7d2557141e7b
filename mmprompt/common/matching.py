"""Hungarian matching of predicted masks to true ones, and the losses on the matched pairs.

Notation: L decoder layers, B images, Q queries, C classes, T true masks of the batch, P points.
Points are (x, y) in [0, 1], the corner of the corner pixel being 0 (grid_sample, align_corners
False). Source: Mask2Former / SEEM, the published values as defaults: cost 2, 5, 5; 12544 points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from mmprompt.common.processes import mean_count


@dataclass
class MaskTargets:
    """The true masks of a batch, images one after another.

    Attributes:
        masks: (T, H, W) bool.
        labels: (T,) class of each mask.
        counts: masks per image, summing to T.
        ignore: (B, H, W) bool, pixels that count neither for nor against any mask, or None.
    """

    masks: Tensor
    labels: Tensor
    counts: list[int]
    ignore: Tensor | None = None

    @classmethod
    def from_lists(cls, masks: Sequence[Tensor], labels: Sequence[Tensor]) -> 'MaskTargets':
        """Join per-image masks [(N_b, H, W)] and labels [(N_b,)]."""
        return cls(torch.cat(list(masks)), torch.cat(list(labels)).long(), [len(m) for m in masks])

    @property
    def images(self) -> Tensor:
        """(T,) index of the image that each mask belongs to."""
        counts = torch.tensor(self.counts, device=self.labels.device)
        return torch.arange(len(counts), device=self.labels.device).repeat_interleave(counts)

    def weights(self, images: Tensor, points: Tensor) -> Tensor | None:
        """How much points count, 0 to 1; None if all do.

        Args:
            images: (R,) which image each row of points looks at.
            points: (R, P, 2).
        """
        return None if self.ignore is None else sample_masks(~self.ignore, images, points)


@dataclass
class Matches:
    """M matched pairs over all layers; four aligned index tensors (M,)."""

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.layer)


def at_least_float(x: Tensor) -> Tensor:
    """Half precisions -> float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def random_points(rows: int, num: int, device=None) -> Tensor:
    """(rows, num, 2) uniform points, from torch's global generator."""
    return torch.rand(rows, num, 2, device=device)


def grid_points(height: int, width: int, device=None, dtype=torch.float32) -> Tensor:
    """(height*width, 2) centres of a grid's cells, row by row."""
    y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).reshape(-1, 2)


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of (N, K, h, w) maps at (N, P, 2) points -> (N, K, P), differentiable."""
    grid = points[:, :, None].to(maps.dtype) * 2 - 1  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def sample_masks(masks: Tensor, rows: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of chosen binary masks, without copying the masks.

    Equal to `sample_maps(masks[rows].float()[:, None], points)`, zero padding included.

    Args:
        masks: (T, H, W) bool or uint8.
        rows: (R,) which mask each row of points looks at.
        points: (R, P, 2).

    Returns:
        (R, P) float.
    """
    height, width = masks.shape[-2:]
    flat = masks.reshape(-1)
    x = points[..., 0] * width - 0.5  # (R, P)
    y = points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    left, top = left.long(), top.long()
    base = rows[:, None] * (height * width)
    total = torch.zeros_like(x)
    for row, share_y in ((top, 1 - bottom_share), (top + 1, bottom_share)):
        share_y = share_y * ((row >= 0) & (row < height))
        line = base + row.clamp(0, height - 1) * width
        for column, share_x in ((left, 1 - right_share), (left + 1, right_share)):
            share = share_x * ((column >= 0) & (column < width)) * share_y
            total += share * flat[line + column.clamp(0, width - 1)]
    return total


def pairwise_mask_cost(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """BCE and Dice of every prediction with every target on shared points.

    BCE(x, t) = softplus(x) - x t, hence one product instead of two.

    Args:
        logits: (..., Q, P).
        targets: (..., N, P) in [0, 1].
        weights: (..., P), how much a point counts in every mean and sum; None means 1.

    Returns:
        two (..., Q, N): mean BCE, and 1 - (2 s.t + 1) / (sum s + sum t + 1) with s = sigmoid.
    """
    softplus, probs, count = F.softplus(logits), logits.sigmoid(), logits.shape[-1]
    if weights is None:
        softplus, area = (x.sum(-1, keepdim=True) for x in (softplus, probs))  # (..., Q, 1)
    else:
        softplus, area = (x @ weights[..., None] for x in (softplus, probs))
        targets = targets * weights[..., None, :]  # one factor of every product below
        count = weights.sum(-1)[..., None, None].clamp(min=1)
    turned = targets.transpose(-1, -2)  # (..., P, N)
    bce = (softplus - logits @ turned) / count
    size = area + targets.sum(-1)[..., None, :]
    dice = 1 - (2 * (probs @ turned) + 1) / (size + 1)
    return bce, dice


def check_grid(owner: str, grid: tuple[int, int] | str | None) -> None:
    """Refuse what is no choice of points.

    Raises:
        ValueError: neither None, 'native', nor two positive numbers (rows, columns).
    """
    pair = isinstance(grid, (tuple, list)) and len(grid) == 2
    if grid in (None, 'native') or (pair and all(isinstance(n, int) and n > 0 for n in grid)):
        return
    raise ValueError(
        f"{owner}.grid: expected None (random points), 'native' or (rows, columns), found {grid!r}."
    )


class HungarianMatcher:
    """One-to-one assignment of least cost, for all images and layers at once.

    Cost = class_weight * (-p_class) + bce_weight * BCE + dice_weight * Dice, on points shared by
    all masks of an image, predicted and true, and by all layers; each layer is matched anew.

    Args:
        num_points: points per image, drawn anew per call.
        grid: (rows, columns) of a fixed grid instead of random points, or 'native' for the cells
            of the predicted maps themselves (then nothing is resampled).

    Raises:
        ValueError: another `grid`.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        bce_weight: float = 5.0,
        dice_weight: float = 5.0,
        num_points: int = 12544,
        grid: tuple[int, int] | str | None = None,
    ):
        check_grid('HungarianMatcher', grid)
        self.class_weight = class_weight
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.num_points = num_points
        self.grid = grid

    @torch.no_grad()
    def __call__(self, logits: Tensor, mask_logits: Tensor, targets: MaskTargets) -> Matches:
        """Match (L, B, Q, C+1) class logits and (L, B, Q, h, w) mask logits."""
        layers, batch, queries, height, width = mask_logits.shape
        points = self.points(batch, (height, width), mask_logits)
        if self.grid == 'native':  # the cell centres are the map's own values
            values = mask_logits.flatten(-2)
        else:
            maps = mask_logits.transpose(0, 1).reshape(batch, layers * queries, height, width)
            values = sample_maps(at_least_float(maps), points)
            values = values.reshape(batch, layers, queries, -1).transpose(0, 1)
        return self.assign(logits, values, points, targets)

    def points(self, batch: int, size: tuple[int, int], like: Tensor) -> Tensor:
        """(B, P, 2) points at which to compare, at least float32.

        Args:
            batch: B.
            size: (h, w) of the predicted maps.
            like: gives device and precision.
        """
        if self.grid is None:
            return random_points(batch, self.num_points, like.device)
        height, width = size if self.grid == 'native' else self.grid
        dtype = torch.promote_types(like.dtype, torch.float32)
        return grid_points(height, width, like.device, dtype).expand(batch, -1, -1)

    @torch.no_grad()
    def assign(
        self, logits: Tensor, values: Tensor, points: Tensor, targets: MaskTargets
    ) -> Matches:
        """Match by mask logits (L, B, Q, P) already taken at (B, P, 2) points."""
        cost = self.cost(logits, values, points, targets)
        # A non-finite loss must be reported as such, not as an error of the solver.
        cost = torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy()
        starts = [sum(targets.counts[:i]) for i in range(len(targets.counts))]
        found = []
        for layer in range(len(logits)):
            for image, count in enumerate(targets.counts):
                rows, columns = linear_sum_assignment(cost[layer, image, :, :count])
                found += [
                    (layer, image, int(q), starts[image] + int(t)) for q, t in zip(rows, columns)
                ]
        index = torch.tensor(found, dtype=torch.long, device=logits.device).reshape(-1, 4)
        return Matches(*index.unbind(dim=1))

    def cost(self, logits: Tensor, values: Tensor, points: Tensor, targets: MaskTargets) -> Tensor:
        """(L, B, Q, N), N the most masks of any image; columns past an image's count are void."""
        device = values.device
        layers, batch = values.shape[:2]
        images, most = targets.images, max(targets.counts, default=0)
        slot = torch.cat([torch.arange(c, device=device) for c in targets.counts])
        rows = torch.arange(len(images), device=device)
        values = at_least_float(values)
        truth = values.new_zeros(batch, most, values.shape[-1])
        truth[images, slot] = sample_masks(targets.masks, rows, points[images].to(truth))
        labels = targets.labels.new_zeros(batch, most)
        labels[images, slot] = targets.labels

        weights = targets.weights(torch.arange(batch, device=device), points.to(truth))  # (B, P)
        bce, dice = pairwise_mask_cost(values, truth, weights)  # (L, B, Q, N)
        probs = at_least_float(logits).softmax(dim=-1)
        index = labels[None, :, None].expand(layers, batch, probs.shape[2], most)
        return (
            self.bce_weight * bce
            + self.dice_weight * dice
            - self.class_weight * probs.gather(-1, index)
        )


@torch.no_grad()
def uncertain_points(
    mask_logits: Tensor, num: int, oversample: float = 3.0, importance: float = 0.75
) -> Tensor:
    """Points where a mask is undecided: of `oversample * num` random ones those of least |logit|.

    Args:
        mask_logits: (M, h, w).
        num: points per mask; the share `importance` is undecided, the rest uniform.

    Returns:
        (M, num, 2).
    """
    rows, device = len(mask_logits), mask_logits.device
    chosen = int(importance * num)
    drawn = random_points(rows, int(oversample * num), device)
    doubt = -sample_maps(mask_logits[:, None], drawn)[:, 0].abs()
    index = doubt.topk(chosen, dim=1, sorted=False).indices
    picked = drawn.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat([picked, random_points(rows, num - chosen, device)], dim=1)


def mask_losses(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Per-mask mean BCE and Dice (+1 smoothing), (M,) each.

    Args:
        logits: (M, P).
        targets: (M, P) in [0, 1].
        weights: (M, P), how much a point counts; None means 1. A mask without any counts for 0.
    """
    count = logits.shape[1]
    bce = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction='none')
    probs = logits.sigmoid()
    both, area = probs * targets, probs + targets
    if weights is not None:
        both, area, count = both * weights, area * weights, weights.sum(1).clamp(min=1)
    dice = 1 - (2 * both.sum(1) + 1) / (area.sum(1) + 1)
    return bce.sum(1) / count, dice


def classification_loss(logits: Tensor, labels: Tensor, no_object_weight: float = 0.1) -> Tensor:
    """Cross-entropy averaged with weight `no_object_weight` on rows of the last class.

    The mean is over the rows of all processes; see `mean_count`.

    Args:
        logits: (..., C+1).
        labels: (...,) in 0..C; C is "no object".
    """
    logits = at_least_float(logits)
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    labels = labels.flatten()
    total = F.cross_entropy(logits.flatten(0, -2), labels, weight, reduction='sum')
    return total / mean_count(weight[labels].sum())
