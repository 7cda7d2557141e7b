"""The losses of SAM-CP as plain loops over queries and patches."""

import torch
from samcp_cases import leaves
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mmprompt.methods.samcp.losses import SAMCPLoss
from mmprompt.methods.samcp.matching_costs import Queries
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.methods.samcp.targets import build_targets

RULES = dict(tau=0.7, low_quality=None, ignore_band=0.5)
OPTIONS = [
    dict(),
    dict(cls_normaliser='positives', mask_normaliser='branch', min_box_iou=0.1),
    dict(empty_units='drop', empty_classes='negative', self_affinity=0.0),
    dict(empty_units='learn', empty_classes='ignore', aux_weight=0.5, denoising_weight=3.0),
    dict(cls_weight=4.0, mfl_weight=0.25, dice_weight=7.0, self_affinity=0.1),
    dict(alpha=0.6, gamma=1.5, dice_eps=0.01),
]


class Looped:
    """The losses of one layer, query by query, only of what is there."""

    def __init__(self, loss: SAMCPLoss, output: SAMCPOutput, samples: list) -> None:
        self.loss, self.output = loss, output
        classes = output.thing_classes, output.semantic_classes
        rules = loss.part_assigner, loss.semantic_assigner, loss.min_box_iou
        self.targets = build_targets(samples, output.boxes, *classes, *rules)
        self.one = self.targets.instance
        if loss.empty_units == 'learn':
            self.one.usable = self.one.real
        wanted = self.one.usable if loss.empty_units == 'drop' else None
        self.units = loss.assigner(Queries.of(output), self.one, wanted).unit
        self.numbers = self.one.num_patches

    def focal(self, logit: Tensor, target: float) -> Tensor:
        truth = torch.full_like(logit, target)
        return sigmoid_focal_loss(logit, truth, self.loss.alpha, self.loss.gamma)

    def row(self, logits: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 2 of one row."""
        counted = [n for n in range(len(parts)) if parts[n] >= 0]
        total, both, probs = 0.0, 0.0, 0.0
        for n in counted:
            truth = float(parts[n])
            total = total + self.focal(logits[n], truth)
            both = both + truth * logits[n].sigmoid()
            probs = probs + logits[n].sigmoid()
        number = sum(float(parts[n]) for n in counted)
        eps = self.loss.dice_eps
        dice = 1 - (2 * both + eps) / (probs + number + eps)
        return total / max(number, 1), dice

    def semantic(self, layer: int) -> dict:
        sums = dict(cls=0.0, mfl=0.0, dice=0.0, queries=0, positives=0, rows=0, matched=0)
        truth = self.targets.semantic
        for image, patches in enumerate(self.numbers):
            for s in range(len(self.output.semantic_classes)):
                present, usable = bool(truth.present[image, s]), bool(truth.usable[image, s])
                rule = self.loss.empty_classes
                if not (rule == 'ignore' and present and not usable):
                    target = present if rule == 'positive' else usable
                    logit = self.output.semantic_logits[layer, image, s]
                    sums['cls'] = sums['cls'] + self.focal(logit, float(target))
                    sums['queries'] += 1
                sums['positives'] += present if rule == 'positive' else usable
                if usable:
                    logits = self.output.affinity_semantic[layer, image, s, :patches]
                    self.add(sums, logits, truth.parts[image, s, :patches])
                    sums['matched'] += 1
        return sums

    def add(self, sums: dict, logits: Tensor, parts: Tensor) -> None:
        mfl, dice = self.row(logits, parts)
        sums['mfl'], sums['dice'] = sums['mfl'] + mfl, sums['dice'] + dice
        sums['rows'] += 1

    def query(self, sums: dict, logits: Tensor, label: int | None) -> None:
        """Eq. 1 of one query."""
        for t in range(len(logits)):
            sums['cls'] = sums['cls'] + self.focal(logits[t], float(t == label))
        sums['queries'] += 1
        sums['positives'] += label is not None

    def instance(self, layer: int) -> dict:
        sums = dict(cls=0.0, mfl=0.0, dice=0.0, queries=0, positives=0, rows=0, matched=0)
        for image, patches in enumerate(self.numbers):
            for q in range(patches):
                unit = int(self.units[layer, image, q])
                logits = self.output.instance_logits[layer, image, q]
                if unit < 0:
                    self.query(sums, logits, None)
                    continue
                sums['matched'] += 1
                if self.one.usable[image, unit]:
                    self.query(sums, logits, int(self.one.labels[image, unit]))
                    affinity = self.output.affinity_instance[layer, image, q, :patches]
                    self.add(sums, affinity, self.one.parts[image, unit, :patches])
        return sums

    def kept(self, layer: int) -> dict:
        """Queries without a unit: the patch itself is the only part."""
        sums = dict(cls=0.0, mfl=0.0, dice=0.0, queries=0, positives=0, rows=0, matched=0)
        for image, patches in enumerate(self.numbers):
            for q in range(patches):
                if self.units[layer, image, q] < 0:
                    own = torch.zeros(patches)
                    own[q] = 1
                    self.add(sums, self.output.affinity_instance[layer, image, q, :patches], own)
        return sums

    def denoising(self, layer: int) -> dict:
        sums = dict(cls=0.0, mfl=0.0, dice=0.0, queries=0, positives=0, rows=0, matched=0)
        noisy = self.output.denoising
        for image, patches in enumerate(self.numbers):
            for r in noisy.valid[image].nonzero()[:, 0].tolist():
                unit = int(noisy.units[image, r])
                if not noisy.positive[image, r]:
                    self.query(sums, noisy.logits[layer, image, r], None)
                elif self.one.usable[image, unit]:
                    label = int(self.one.labels[image, unit])
                    self.query(sums, noisy.logits[layer, image, r], label)
                    affinity = noisy.affinity[layer, image, r, :patches]
                    self.add(sums, affinity, self.one.parts[image, unit, :patches])
        return sums

    def losses(self) -> dict[str, Tensor]:
        loss, found = self.loss, {}
        last = len(self.output.semantic_logits) - 1
        for layer in range(last + 1):
            factor = 1.0 if layer == last else loss.aux_weight
            prefix = '' if layer == last else f'd{layer}.'
            semantic, instance = self.semantic(layer), self.instance(layer)
            branches = dict(semantic=(1.0, semantic), instance=(1.0, instance))
            if loss.self_affinity:
                branches['self'] = (loss.self_affinity, self.kept(layer))
            if self.output.denoising is not None and loss.denoising_weight:
                branches['denoising'] = (loss.denoising_weight, self.denoising(layer))
            for name, (weight, sums) in branches.items():
                by_cls, by_rows = self.counts(name, sums, semantic, instance)
                values = dict(
                    mfl=sums['mfl'] / max(by_rows, 1), dice=sums['dice'] / max(by_rows, 1)
                )
                if name != 'self':
                    values['cls'] = sums['cls'] / max(by_cls, 1)
                for kind, value in values.items():
                    key = f'{prefix}loss_{kind}_{name}'
                    found[key] = factor * weight * loss.weights[kind] * value
        return found

    def counts(self, name: str, sums: dict, semantic: dict, instance: dict) -> tuple[int, int]:
        if name in ('self', 'denoising'):
            queries = self.loss.cls_normaliser == 'queries'
            return sums['queries' if queries else 'positives'], sums['rows']
        by_cls, by_rows = sums['positives'], sums['matched']
        if self.loss.cls_normaliser == 'queries':
            by_cls = semantic['queries'] + instance['queries']
        if self.loss.mask_normaliser == 'all':
            by_rows = semantic['rows'] + instance['rows']
        return by_cls, by_rows


def gradients(values: dict[str, Tensor], output: SAMCPOutput) -> dict[str, Tensor]:
    tensors = leaves(output)
    total = sum(value for key, value in values.items() if 'loss' in key)
    found = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(tensors.items(), found)}
