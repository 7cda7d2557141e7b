"""Which instance query answers for which true instance: five costs and their least sum.

Section 3.2.3 names class, mask focal, Dice, box and GIoU costs; Appendix B.1 weighs them 2, 1, 1, 1
and 1, and Table 3 leaves some out. All layers and images are computed at once and cross to the CPU
once. Notation as in `structures` and `targets`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_area

from mmprompt.common.errors import UserError
from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.methods.samcp.targets import PART, InstanceTargets
from mmprompt.registry import TASK_UTILS

#: Stands for a cost that is no number: the loss will be none either, and is reported as such.
BAD = 1e6


@dataclass
class Queries:
    """Instance queries of all layers, in at least float32.

    Attributes:
        logits: (L, B, N, T).
        affinity: (L, B, N, N) logits, 0 at padded patches.
        boxes: (L, B, N, 4) normalised.
        valid: (B, N) bool.
    """

    logits: Tensor
    affinity: Tensor
    boxes: Tensor
    valid: Tensor

    @classmethod
    def of(cls, output: SAMCPOutput) -> 'Queries':
        """The instance queries of a model's output, without gradient."""
        affinity = at_least_float(output.affinity_instance.detach())
        return cls(
            at_least_float(output.instance_logits.detach()),
            affinity.masked_fill(~output.valid[:, None], 0),
            at_least_float(output.boxes_instance.detach()),
            output.valid,
        )


@dataclass
class Assignment:
    """Which query answers for which unit, -1 for none.

    Attributes:
        unit: (L, B, N) int64, of each query.
        query: (L, B, K) int64, of each unit.
    """

    unit: Tensor
    query: Tensor


def focal_terms(logits: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss of every logit if its target were 1, and if it were 0; shapes as given."""
    probs = logits.sigmoid()
    positive = alpha * (1 - probs) ** gamma * F.softplus(-logits)
    return positive, (1 - alpha) * probs**gamma * F.softplus(logits)


@TASK_UTILS.register_module()
class SAMCPClassCost:
    """Focal loss of the unit's class, positive less negative, as in the DETR series.

    Args:
        weight: factor.
        alpha, gamma: of the focal loss.
    """

    def __init__(self, weight: float = 2.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, queries: Queries, targets: InstanceTargets) -> Tensor:
        """(L, B, N, K)."""
        labels = targets.labels[:, None].expand(*queries.logits.shape[:-1], -1)
        if not queries.logits.shape[-1]:  # without things all costs are equal
            return queries.logits.new_zeros(labels.shape)
        positive, negative = focal_terms(queries.logits.gather(-1, labels), self.alpha, self.gamma)
        return self.weight * (positive - negative)


def _shares(queries: Queries, targets: InstanceTargets) -> tuple[Tensor, Tensor]:
    """Parts, and what is neither part nor ignored nor padding: two (B, N, K) of 0 and 1."""
    parts = targets.parts.transpose(1, 2)  # (B, N, K)
    others = (parts == 0) & queries.valid[..., None]
    return (parts == PART).to(queries.affinity), others.to(queries.affinity)


@TASK_UTILS.register_module()
class SAMCPMaskFocalCost:
    """Focal loss of a query's affinity with the row of G, by the number of parts (Eq. 2).

    Args:
        weight: factor.
        alpha, gamma: of the focal loss.
    """

    def __init__(self, weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, queries: Queries, targets: InstanceTargets) -> Tensor:
        """(L, B, N, K)."""
        parts, others = _shares(queries, targets)
        positive, negative = focal_terms(queries.affinity, self.alpha, self.gamma)
        total = positive @ parts + negative @ others
        return self.weight * total / parts.sum(dim=1).clamp(min=1)[:, None]


@TASK_UTILS.register_module()
class SAMCPDiceCost:
    """1 - (2 a.g + eps) / (sum a + sum g + eps) of affinity a and row g of G.

    Args:
        weight: factor.
        eps: smoothing.
    """

    def __init__(self, weight: float = 1.0, eps: float = 1.0) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, queries: Queries, targets: InstanceTargets) -> Tensor:
        """(L, B, N, K)."""
        parts, others = _shares(queries, targets)
        probs = queries.affinity.sigmoid() * queries.valid[:, None]
        both = probs @ parts
        size = both + probs @ others + parts.sum(dim=1)[:, None]
        return self.weight * (1 - (2 * both + self.eps) / (size + self.eps))


@TASK_UTILS.register_module()
class SAMCPBoxCost:
    """Sum of the absolute differences of the normalised corners of the merged box.

    Args:
        weight: factor.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, queries: Queries, targets: InstanceTargets) -> Tensor:
        """(L, B, N, K)."""
        truth = targets.boxes.to(queries.boxes).expand(len(queries.boxes), -1, -1, -1)
        return self.weight * torch.cdist(queries.boxes, truth, p=1)


@TASK_UTILS.register_module()
class SAMCPGIoUCost:
    """Minus the generalised IoU of the merged box; a box without area meets none.

    Args:
        weight: factor.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, queries: Queries, targets: InstanceTargets) -> Tensor:
        """(L, B, N, K)."""
        truth = targets.boxes.to(queries.boxes)
        return -self.weight * pairwise_giou(queries.boxes, truth)


def pairwise_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (L, B, N, 4) with boxes (B, K, 4) -> (L, B, N, K)."""
    areas = [box_area(boxes.reshape(-1, 4)).view(boxes.shape[:-1]) for boxes in (a, b)]
    a, b = a[..., :, None, :], b[:, None]  # (L, B, N, 1, 4), (B, 1, K, 4)
    tiny = torch.finfo(a.dtype).tiny
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(0)
    inner, outer = inner[..., 0] * inner[..., 1], outer[..., 0] * outer[..., 1]
    union = areas[0][..., None] + areas[1][:, None] - inner
    return inner / union.clamp(min=tiny) - (outer - union) / outer.clamp(min=tiny)


#: The costs of the paper by their names in Table 3.
COSTS = dict(
    cls='SAMCPClassCost',
    mfl='SAMCPMaskFocalCost',
    dice='SAMCPDiceCost',
    bbox='SAMCPBoxCost',
    giou='SAMCPGIoUCost',
)


@TASK_UTILS.register_module()
class SAMCPHungarianAssigner:
    """One-to-one assignment of least cost, for all layers and images at once.

    Args:
        cls, mfl, dice, bbox, giou: the five costs: a weight, a config, or None to leave one out
            (Table 3). Alpha, gamma and eps of `SAMCPLoss` do not come here: a config such as
            ``dict(type='SAMCPDiceCost', weight=1.0, eps=0.01)`` has its own.
        extra: configs of further costs; each is called with `Queries` and `InstanceTargets`.

    Raises:
        ValueError: no cost at all.
    """

    def __init__(
        self,
        cls: float | Mapping | None = 2.0,
        mfl: float | Mapping | None = 1.0,
        dice: float | Mapping | None = 1.0,
        bbox: float | Mapping | None = 1.0,
        giou: float | Mapping | None = 1.0,
        extra: Sequence[Mapping] = (),
    ) -> None:
        given = dict(cls=cls, mfl=mfl, dice=dice, bbox=bbox, giou=giou)
        configs = [
            dict(value) if isinstance(value, Mapping) else dict(type=COSTS[name], weight=value)
            for name, value in given.items()
            if value is not None
        ]
        self.costs = [TASK_UTILS.build(config) for config in (*configs, *map(dict, extra))]
        if not self.costs:
            raise ValueError('SAMCPHungarianAssigner: expected at least one cost, found none.')

    @torch.no_grad()
    def __call__(
        self, queries: Queries, targets: InstanceTargets, wanted: Tensor | None = None
    ) -> Assignment:
        """Assign.

        Args:
            queries: of all layers.
            targets: of the batch.
            wanted: (B, K) bool: units that take part; None: all real ones.

        Raises:
            UserError: an instance of a class that is no thing.
        """
        with torch.autocast(queries.logits.device.type, enabled=False):
            cost = sum(cost(queries, targets) for cost in self.costs)
        cost = torch.nan_to_num(cost, nan=BAD, posinf=BAD, neginf=-BAD)
        role = (targets.real if wanted is None else wanted).to(cost)
        role = role.masked_fill(targets.foreign, -1)  # (B, K)
        # What each column is goes along below its costs, so that one transfer is enough.
        role = role[None, :, None].expand(len(cost), -1, 1, -1)
        table = torch.cat([cost, role], dim=2).cpu().numpy()  # (L, B, N + 1, K)
        if (table[:1, :, -1] < 0).any():
            raise UserError(
                'gt_units: expected instances of the thing classes of the model, found one of '
                'another class. Give the data set, LoadUnits and the model the same thing_classes.'
            )
        unit_of = torch.full(cost.shape[:3], -1)  # (L, B, N)
        query_of = torch.full((*cost.shape[:2], cost.shape[3]), -1)  # (L, B, K)
        for image, (units, patches) in enumerate(zip(targets.num_units, targets.num_patches)):
            columns = table[0, image, -1, :units].nonzero()[0]
            for layer in range(len(cost)):
                rows, chosen = linear_sum_assignment(table[layer, image, :patches][:, columns])
                unit_of[layer, image, rows] = torch.from_numpy(columns[chosen])
                query_of[layer, image, columns[chosen]] = torch.from_numpy(rows)
        return Assignment(unit_of.to(cost.device), query_of.to(cost.device))
