"""The losses of SAM-CP: Eq. 1 for classes, Eq. 2 for affinities, for three kinds of queries.

Notation as in `structures` and `targets`. A *branch* is a kind of queries: semantic, instance or
denoising. Every sum is over all layers' rows at once; what the layers share is computed once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mmprompt.common.matching import at_least_float
from mmprompt.common.processes import mean_count
from mmprompt.methods.samcp.matching_costs import (
    Assignment,
    Queries,
    focal_terms,
)
from mmprompt.methods.samcp.structures import DenoisingOutput, SAMCPOutput
from mmprompt.methods.samcp.targets import (
    PART,
    BatchTargets,
    build_targets,
)
from mmprompt.registry import MODELS, TASK_UTILS

CHOICES = dict(
    cls_normaliser=('queries', 'positives'),
    mask_normaliser=('all', 'branch'),
    empty_units=('ignore', 'drop', 'learn'),
    empty_classes=('positive', 'negative', 'ignore'),
)


class Branch(NamedTuple):
    """Sums of one branch over its rows, and what they may be divided by; (L,) each.

    Attributes:
        cls, mfl, dice: sums of the losses.
        queries: how many queries have a class target, be it "none".
        positives: how many of them are of a class.
        rows: how many have an affinity target.
        matched: how many were assigned to a unit, whatever becomes of them.
    """

    cls: Tensor
    mfl: Tensor
    dice: Tensor
    queries: Tensor
    positives: Tensor
    rows: Tensor
    matched: Tensor


def _build(default: str, config: Mapping):
    return TASK_UTILS.build({'type': default, **config})


@MODELS.register_module()
class SAMCPLoss(nn.Module):
    """All losses of a training step, from plain tensors.

    Args:
        part_assigner: arguments of the `SAMCPPartAssigner` that makes G, or the config of another.
        semantic_assigner: of another one for the regions of classes; None: the same.
        assigner: of the `SAMCPHungarianAssigner`, with its five costs.
        cls_weight, mfl_weight, dice_weight: lambda of Section 3.2.3; 0 leaves a loss out (Table 3).
        self_affinity: factor of the losses that keep each unmatched instance query at its own
            patch ("segment anything", Table 4, BG); 0 leaves them out.
        denoising_weight: factor of the losses of denoising queries.
        aux_weight: factor of the losses of all layers but the last.
        alpha, gamma: of the focal losses; the costs of `assigner` have their own.
        dice_eps: smoothing of the Dice loss; the cost has its own.
        cls_normaliser: 'queries' divides by M, the queries of both kinds (Eq. 1); 'positives' by
            the queries of a class, each branch by its own.
        mask_normaliser: 'all' divides by M*, the positive queries of both kinds (Eq. 2); 'branch'
            by those of each branch, for instances the matched ones.
        empty_units: what becomes of the query that is matched to an instance without parts:
            'ignore' it, 'drop' such instances before the matching, or 'learn' its class and an
            empty row.
        empty_classes: target of a semantic query whose class is in the image, but has no parts:
            'positive' (Appendix A.2), 'negative' or 'ignore'.
        min_box_iou: treat an instance as one without parts if the IoU of its box with the box
            around its parts is no more than this; None: never.

    Raises:
        ValueError: another word than these.
    """

    def __init__(
        self,
        part_assigner: Mapping | None = None,
        semantic_assigner: Mapping | None = None,
        assigner: Mapping | None = None,
        cls_weight: float = 2.0,
        mfl_weight: float = 1.0,
        dice_weight: float = 1.0,
        self_affinity: float = 1.0,
        denoising_weight: float = 1.0,
        aux_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        dice_eps: float = 1.0,
        cls_normaliser: str = 'queries',
        mask_normaliser: str = 'all',
        empty_units: str = 'ignore',
        empty_classes: str = 'positive',
        min_box_iou: float | None = None,
    ) -> None:
        super().__init__()
        self.part_assigner = _build('SAMCPPartAssigner', part_assigner or {})
        self.semantic_assigner = None
        if semantic_assigner is not None:
            self.semantic_assigner = _build('SAMCPPartAssigner', semantic_assigner)
        self.assigner = _build('SAMCPHungarianAssigner', assigner or {})
        self.weights = dict(cls=cls_weight, mfl=mfl_weight, dice=dice_weight)
        self.self_affinity, self.denoising_weight = self_affinity, denoising_weight
        self.aux_weight, self.min_box_iou = aux_weight, min_box_iou
        self.alpha, self.gamma, self.dice_eps = alpha, gamma, dice_eps
        self.cls_normaliser, self.mask_normaliser = cls_normaliser, mask_normaliser
        self.empty_units, self.empty_classes = empty_units, empty_classes
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'{name}: expected one of {allowed}, found {getattr(self, name)!r}.'
                )

    def forward(self, output: SAMCPOutput, samples: Sequence) -> dict[str, Tensor]:
        """Losses of a batch; every process must call, with units or without.

        Args:
            output: of the model.
            samples: with `gt_units` and `img_shape`, in the order of the batch.

        Returns:
            `loss_<cls|mfl|dice>_<semantic|instance|self|denoising>` of the last layer, the same
            with `d<layer>.` before it for the others.

        Raises:
            UserError: see `build_targets` and `SAMCPHungarianAssigner`.
        """
        targets = build_targets(
            samples,
            output.boxes,
            output.thing_classes,
            output.semantic_classes,
            self.part_assigner,
            self.semantic_assigner,
            self.min_box_iou,
        )
        if self.empty_units == 'learn':
            targets.instance.usable = targets.instance.real
        output = self._needed(output)
        with torch.autocast(output.valid.device.type, enabled=False):
            wanted = targets.instance.usable if self.empty_units == 'drop' else None
            found = self.assigner(Queries.of(output), targets.instance, wanted)
            branches = dict(
                semantic=self._semantic(output, targets),
                instance=self._instance(output, targets, found),
            )
            if self.denoising_weight:
                branches['denoising'] = self._denoising(output, targets)
            if self.self_affinity:
                branches['self'] = self._self(output, found)
            values = self._divided(branches)
        if output.denoising is None:
            values.pop('denoising', None)
        return self._named(values)

    def _needed(self, output: SAMCPOutput) -> SAMCPOutput:
        """Without auxiliary losses the last layer alone."""
        if self.aux_weight:
            return output
        kept = dict(vars(output))
        names = ('semantic_logits', 'instance_logits', 'affinity_semantic', 'affinity_instance')
        kept.update({name: kept[name][-1:] for name in (*names, 'boxes_instance')})
        if output.denoising is not None:
            part = dict(vars(output.denoising))
            part.update(logits=part['logits'][-1:], affinity=part['affinity'][-1:])
            kept['denoising'] = DenoisingOutput(**part)
        return SAMCPOutput(**kept)

    def _semantic(self, output: SAMCPOutput, targets: BatchTargets) -> Branch:
        """Query c asks for class c: is it there (Eq. 1), and which patches has it (Eq. 2)?"""
        truth = targets.semantic
        empty = truth.present & ~truth.usable
        positive = truth.present if self.empty_classes == 'positive' else truth.usable
        counted = ~empty if self.empty_classes == 'ignore' else torch.ones_like(empty)  # (B, S)
        logits = at_least_float(output.semantic_logits)  # (L, B, S)
        cls = self._focal(logits, positive.expand_as(logits)) * counted
        mfl, dice = self._affinity(output.affinity_semantic, truth.parts, output.valid)
        rows = truth.usable.expand_as(logits)
        return self._branch(
            cls, mfl, dice, rows, counted.expand_as(logits), positive.expand_as(logits), rows
        )

    def _instance(self, output: SAMCPOutput, targets: BatchTargets, found: Assignment) -> Branch:
        """Matched queries have a class and a row; all others are of no class."""
        truth, valid = targets.instance, output.valid
        logits = at_least_float(output.instance_logits)  # (L, B, N, T)
        image = torch.arange(len(valid), device=valid.device)[:, None]
        unit, matched = found.unit.clamp(min=0), found.unit >= 0  # (L, B, N)
        positive = matched & truth.usable[image, unit]
        counted = valid & ~(matched & ~positive)
        cls = self._classes(logits, truth.labels[image, unit], positive, counted)
        # Rows of affinities in the order of the units: few of the queries have one.
        query = found.query.clamp(min=0)[..., None]  # (L, B, K, 1)
        chosen = output.affinity_instance.take_along_dim(query, dim=2)  # (L, B, K, N)
        rows = (found.query >= 0) & truth.usable
        mfl, dice = self._affinity(chosen, truth.parts, valid)
        return self._branch(cls, mfl, dice, rows, counted, positive, matched)

    def _denoising(self, output: SAMCPOutput, targets: BatchTargets) -> Branch:
        """Queries made from units shall find them again, or nothing if moved too far."""
        truth, noisy = targets.instance, output.denoising
        if noisy is None:  # another process may have some: the counts are asked for together
            zero = at_least_float(output.semantic_logits).new_zeros(len(output.semantic_logits))
            return Branch(*[zero] * 7)
        logits = at_least_float(noisy.logits)  # (L, B, R, T)
        image = torch.arange(len(noisy.units), device=noisy.units.device)[:, None]
        usable, matched = truth.usable[image, noisy.units], noisy.positive & noisy.valid  # (B, R)
        positive = (matched & usable).expand(logits.shape[:-1])
        counted = (noisy.valid & ~(matched & ~usable)).expand(logits.shape[:-1])
        labels = truth.labels[image, noisy.units].expand(logits.shape[:-1])
        cls = self._classes(logits, labels, positive, counted)
        mfl, dice = self._affinity(noisy.affinity, truth.parts[image, noisy.units], output.valid)
        return self._branch(cls, mfl, dice, positive, counted, positive, positive)

    def _self(self, output: SAMCPOutput, found: Assignment) -> Branch:
        """Unmatched instance queries keep to their own patches.

        FL of a row whose only part is its diagonal is the sum of FL with target 0 over the row,
        the diagonal aside, so no target is made.
        """
        valid = output.valid
        logits = at_least_float(output.affinity_instance)  # (L, B, N, N)
        logits = logits.masked_fill(~valid[:, None], 0)
        positive, negative = focal_terms(logits, self.alpha, self.gamma)
        negative = negative * valid[:, None]
        own, other = (x.diagonal(dim1=-2, dim2=-1) for x in (positive, negative))  # (L, B, N)
        mfl = negative.sum(dim=-1) - other + own
        probs = logits.sigmoid() * valid[:, None]
        both = probs.diagonal(dim1=-2, dim2=-1)
        dice = 1 - (2 * both + self.dice_eps) / (probs.sum(dim=-1) + 1 + self.dice_eps)
        rows = valid & (found.unit < 0)
        none = torch.zeros_like(mfl)
        return self._branch(none, mfl, dice, rows, rows, rows, rows)

    def _focal(self, logits: Tensor, target: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, target.to(logits), self.alpha, self.gamma)

    def _classes(self, logits: Tensor, labels: Tensor, positive: Tensor, counted: Tensor) -> Tensor:
        """Focal loss of each query over all classes; (L, B, M)."""
        if not logits.shape[-1]:  # no things
            return logits.sum(dim=-1)
        target = torch.zeros_like(logits)
        target.scatter_(-1, labels[..., None], positive[..., None].to(target))
        logits = logits.masked_fill(~counted[..., None], 0)
        return self._focal(logits, target).sum(dim=-1) * counted

    def _affinity(self, logits: Tensor, parts: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The two sums of Eq. 2 for every row; (L, B, M) each.

        Args:
            logits: (L, B, M, N).
            parts: (B, M, N) int8, rows of G.
            valid: (B, N).
        """
        counted = (parts >= 0) & valid[:, None]  # (B, M, N)
        logits = at_least_float(logits).masked_fill(~counted, 0)
        part = (parts == PART).to(logits)
        number = part.sum(dim=-1)  # (B, M)
        focal = self._focal(logits, part.expand_as(logits)) * counted
        probs = logits.sigmoid() * counted
        both = (probs * part).sum(dim=-1)
        size = probs.sum(dim=-1) + number
        dice = 1 - (2 * both + self.dice_eps) / (size + self.dice_eps)
        return focal.sum(dim=-1) / number.clamp(min=1), dice

    @staticmethod
    def _branch(
        cls: Tensor,
        mfl: Tensor,
        dice: Tensor,
        rows: Tensor,
        counted: Tensor,
        positive: Tensor,
        matched: Tensor,
    ) -> Branch:
        """Sums over images and queries, (L, B, M) -> (L,); a row without a target has no loss."""
        sums = [cls, mfl.masked_fill(~rows, 0), dice.masked_fill(~rows, 0)]
        sums += [flag.to(mfl) for flag in (counted, positive, rows, matched)]
        return Branch(*(each.flatten(1).sum(dim=1) for each in sums))

    def _divided(self, branches: Mapping[str, Branch]) -> dict[str, dict[str, Tensor]]:
        """Losses (L,) of each branch: sums by counts of all processes, which meet once for it."""
        counts = [self._counts(name, branches) for name in branches]  # (cls, masks) of each
        counts = mean_count(torch.stack([torch.stack(pair) for pair in counts]))  # (., 2, L)
        values = {}
        for (name, branch), (by_cls, by_rows) in zip(branches.items(), counts):
            found = dict(mfl=branch.mfl / by_rows, dice=branch.dice / by_rows)
            if name != 'self':
                found['cls'] = branch.cls / by_cls
            values[name] = {k: v for k, v in found.items() if self.weights[k]}
        return values

    def _counts(self, name: str, branches: Mapping[str, Branch]) -> tuple[Tensor, Tensor]:
        """What the class loss and the affinity losses of a branch are divided by, (L,) each."""
        mine = branches[name]
        if name not in ('semantic', 'instance'):  # these stand beside the queries of Eq. 1 and 2
            by_query = self.cls_normaliser == 'queries'
            return mine.queries if by_query else mine.positives, mine.rows
        both = branches['semantic'], branches['instance']
        if self.cls_normaliser == 'queries':
            by_cls = sum(branch.queries for branch in both)
        else:
            by_cls = mine.positives
        if self.mask_normaliser == 'all':
            return by_cls, sum(branch.rows for branch in both)
        return by_cls, mine.matched

    def _named(self, values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Weighted losses by name, one per layer."""
        factors = dict(self=self.self_affinity, denoising=self.denoising_weight)
        losses = {}
        for branch, found in values.items():
            for kind, value in found.items():
                factor = self.weights[kind] * factors.get(branch, 1.0)
                name = f'loss_{kind}_{branch}'
                losses[name] = factor * value[-1]
                for layer, each in enumerate(value[:-1]):
                    losses[f'd{layer}.{name}'] = self.aux_weight * factor * each
        return losses
