"""Section 4.1: patches of high affinity are merged into semantic, instance and panoptic results.

Masks of patches are never decoded; see `canvas`. Notation as in `structures` and there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torchvision.ops import batched_nms

from mmprompt.common.errors import UserError
from mmprompt.common.mask_merge import PanopticResult
from mmprompt.common.matching import at_least_float
from mmprompt.common.patches import PatchSet
from mmprompt.common.results import add_panoptic
from mmprompt.methods.samcp.canvas import Canvas, row_blocks
from mmprompt.methods.samcp.merging import merging_affinity
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.registry import TASK_UTILS

#: The label of pixels that nothing claims, MMSegmentation's "ignored", unless it is a class.
VOID = 255
CHOICES = dict(
    mask_rule=('min-max', 'threshold'),
    semantic_from=('rows', 'panoptic'),
    semantic_pixel=('score*affinity', 'score'),
    unclaimed=('best', 'void'),
    instance_score=('class', 'class*affinity'),
    panoptic_pixel=('score', 'score*affinity'),
)


@dataclass
class ImageScores:
    """What of one image the results are made of; patches and queries without padding.

    Attributes:
        semantic: (S,) probability that the class of a semantic query is in the image.
        instance: (N, T) probability of each thing class.
        affinity_semantic: (S, N) logits.
        affinity_instance: (N, N) logits.
        semantic_classes: (S,).
        thing_classes: (T,).
    """

    semantic: Tensor
    instance: Tensor
    affinity_semantic: Tensor
    affinity_instance: Tensor
    semantic_classes: Tensor
    thing_classes: Tensor

    @property
    def num_classes(self) -> int:
        """C: every class is a semantic query or a thing."""
        classes = torch.cat([self.semantic_classes, self.thing_classes])
        return int(classes.max()) + 1 if len(classes) else 0

    @property
    def void(self) -> int:
        """The label of pixels that nothing claims: 255, or C where that is a class."""
        return max(VOID, self.num_classes)


def read_scores(output: SAMCPOutput, image: int) -> ImageScores:
    """The last layer's answer for one image of a batch."""
    there = output.valid[image]
    rows = at_least_float(output.affinity_instance[-1, image])[there]
    return ImageScores(
        at_least_float(output.semantic_logits[-1, image]).sigmoid(),
        at_least_float(output.instance_logits[-1, image])[there].sigmoid(),
        at_least_float(output.affinity_semantic[-1, image])[:, there],
        rows[:, there],
        output.semantic_classes,
        output.thing_classes,
    )


@dataclass
class Rows:
    """Candidates of the panoptic result, best first.

    Attributes:
        labels: (R,) class.
        scores: (R,) of the class.
        affinity: (R, N) logits.
    """

    labels: Tensor
    scores: Tensor
    affinity: Tensor


#: Of which image of a batch, its scores and its canvas -> scores that take their place.
Rescore = Callable[[int, ImageScores, Canvas], ImageScores]


@TASK_UTILS.register_module()
class SAMCPPredictor:
    """All three results of an image from one forward pass; the `test_cfg` of SAM-CP.

    Args:
        semantic, instances, panoptic: which results to make.
        mask_rule: 'min-max' scales each row of affinities before the threshold ("normalized and
            quantized", Section 4.1); 'threshold' takes the probabilities themselves.
        mask_threshold: a patch of higher affinity is merged.
        semantic_from: 'rows': from the semantic queries, a pixel going to the class of highest
            score among those that claim it; 'panoptic': from the panoptic map, as released.
        semantic_score: classes of lower probability claim nothing.
        semantic_pixel: how classes that claim a pixel are compared: by the probability of the class
            times the highest affinity of a merged patch there, or by the probability alone.
        unclaimed: pixels that a patch covers and no class claims: 'best' gives them to the class of
            highest probability times affinity (unscaled), 'void' leaves them at 255 (at C where
            there are more than 255 classes), as pixels without a patch.
        instance_top_k: kept pairs of query and class.
        instance_score: 'class', or times the mean affinity over the pixels of the merged patches.
        instance_min_score: pairs of lower score are dropped.
        nms_iou: of boxes, class by class, above which the worse instance is dropped; None: never.
        panoptic_score: rows of lower class probability take no part.
        panoptic_affinity: rows without a patch of higher probability (unscaled) take no part.
        panoptic_top_k: rows that take part.
        panoptic_pixel: how rows that claim a pixel are compared, as `semantic_pixel`.
        overlap_threshold: a row that wins less of its own area is dropped.

    Raises:
        ValueError: another word than these.
    """

    def __init__(
        self,
        semantic: bool = True,
        instances: bool = True,
        panoptic: bool = True,
        mask_rule: str = 'min-max',
        mask_threshold: float = 0.5,
        semantic_from: str = 'rows',
        semantic_score: float = 0.3,
        semantic_pixel: str = 'score*affinity',
        unclaimed: str = 'best',
        instance_top_k: int = 100,
        instance_score: str = 'class',
        instance_min_score: float = 0.0,
        nms_iou: float | None = None,
        panoptic_score: float = 0.3,
        panoptic_affinity: float = 0.3,
        panoptic_top_k: int = 100,
        panoptic_pixel: str = 'score',
        overlap_threshold: float = 0.8,
    ) -> None:
        self.semantic, self.instances, self.panoptic = semantic, instances, panoptic
        self.mask_rule, self.mask_threshold = mask_rule, mask_threshold
        self.semantic_from, self.semantic_score = semantic_from, semantic_score
        self.semantic_pixel, self.unclaimed = semantic_pixel, unclaimed
        self.instance_top_k, self.instance_score = instance_top_k, instance_score
        self.instance_min_score, self.nms_iou = instance_min_score, nms_iou
        self.panoptic_score, self.panoptic_affinity = panoptic_score, panoptic_affinity
        self.panoptic_top_k, self.panoptic_pixel = panoptic_top_k, panoptic_pixel
        self.overlap_threshold = overlap_threshold
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                found = getattr(self, name)
                raise ValueError(f'test_cfg.{name}: expected one of {allowed}, found {found!r}.')

    @torch.no_grad()
    def __call__(
        self, output: SAMCPOutput, samples: Sequence, rescore: Rescore | None = None
    ) -> Sequence:
        """Add `pred_sem_seg`, `pred_instances` and `pred_panoptic_seg` to the samples of a batch.

        Args:
            output: of the model.
            samples: each with `patch_set` and `patches.ids`, the rows of it that the model saw.
            rescore: what makes other scores of those of an image, before anything is merged.

        Raises:
            UserError: a sample without patches.
        """
        for image, sample in enumerate(samples):
            scores = read_scores(output, image)
            with torch.autocast(scores.semantic.device.type, enabled=False):
                canvas = Canvas(_patches(sample), scores.semantic.device)
                self._add(sample, rescore(image, scores, canvas) if rescore else scores, canvas)
        return samples

    @torch.no_grad()
    def add(self, sample, scores: ImageScores) -> None:
        """Add the results of one image to its sample.

        Args:
            sample: SegDataSample or DetDataSample, in the frame of the original image.
            scores: of the patches `sample.patches.ids`.
        """
        with torch.autocast(scores.semantic.device.type, enabled=False):
            self._add(sample, scores, Canvas(_patches(sample), scores.semantic.device))

    def _add(self, sample, scores: ImageScores, canvas: Canvas) -> None:
        found = None
        if self.panoptic or (self.semantic and self.semantic_from == 'panoptic'):
            found = self.merge_panoptic(scores, canvas)
        if self.semantic:
            if self.semantic_from == 'panoptic':
                label_map = _labels_of(found, scores.void)
            else:
                label_map = self.merge_semantic(scores, canvas)
            sample.set_data(dict(pred_sem_seg=PixelData(data=label_map[None])))
        things = scores.thing_classes.tolist()
        if self.panoptic:
            add_panoptic(sample, found, scores.num_classes, things)
        if self.instances:
            sample.set_data(dict(pred_instances=self.merge_instances(scores, canvas)))

    def merged(self, logits: Tensor) -> Tensor:
        """Which patches a query merges, (R, N) bool of affinity logits."""
        return merging_affinity(logits, self.mask_rule) > self.mask_threshold

    def merge_semantic(self, scores: ImageScores, canvas: Canvas) -> Tensor:
        """Label map (H, W) int64: each class merges the patches of its row of A.

        Things without semantic queries are merged from instance queries that are good enough for
        the panoptic result.
        """
        classes, probs = scores.semantic_classes, scores.semantic
        logits = scores.affinity_semantic
        if not torch.isin(scores.thing_classes, classes).all():
            rows = self._rows(scores, semantic=False)
            classes = torch.cat([classes, rows.labels])
            probs = torch.cat([probs, rows.scores])
            logits = torch.cat([logits, rows.affinity])
        sure = probs >= self.semantic_score
        best, winner = self._winners(logits[sure], probs[sure], canvas, self.semantic_pixel)
        labels = _labelled(best, winner, classes[sure], scores.void)  # (A,)
        if self.unclaimed == 'best':
            best, winner = self._winners(logits, probs, canvas, 'unscaled', labels == scores.void)
            labels = torch.where(best > 0, _labelled(best, winner, classes, scores.void), labels)
        return canvas.paint(labels)

    def _winners(
        self,
        logits: Tensor,
        scores: Tensor,
        canvas: Canvas,
        by: str,
        atoms: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The highest claim on each atom (A,) and the row whose it is, 0 for both without any."""
        best = scores.new_zeros(len(canvas.areas))
        winner = torch.zeros_like(best, dtype=torch.long)
        for rows in row_blocks(len(scores), len(canvas.patch)):
            claim, row = self._claims(logits[rows], scores[rows], canvas, by, atoms).max(dim=0)
            winner = torch.where(claim > best, row + rows.start, winner)
            best = torch.maximum(claim, best)
        return best, winner

    def _claims(
        self, logits: Tensor, scores: Tensor, canvas: Canvas, by: str, atoms: Tensor | None
    ) -> Tensor:
        """(R, A): how much a row claims an atom, 0 where none of its merged patches is.

        With 'unscaled' all patches claim, by their probabilities.
        """
        if by == 'unscaled':
            return canvas.highest(logits.sigmoid(), atoms) * scores[:, None]
        affinity = merging_affinity(logits, self.mask_rule)
        member = affinity > self.mask_threshold
        if by == 'score':
            return canvas.union(member) * scores[:, None]
        return canvas.highest(affinity * member) * scores[:, None]

    def merge_instances(self, scores: ImageScores, canvas: Canvas) -> InstanceData:
        """The best pairs of query and class; a query's mask is the union of its patches.

        Beside masks, boxes, labels and scores, `members` (K, N) tells which patches these are.
        """
        probs = scores.instance.flatten()  # (N * T,)
        affinity = merging_affinity(scores.affinity_instance, self.mask_rule)
        best, pair = probs.topk(min(self.instance_top_k, len(probs)))
        columns = max(scores.instance.shape[1], 1)
        query, column = pair.div(columns, rounding_mode='floor'), pair % columns
        member = affinity[query] > self.mask_threshold
        union = canvas.union(member)  # (K, A)
        keep = canvas.area(union) > 0
        if self.instance_score == 'class*affinity':
            inside = canvas.highest(affinity[query] * member).double() @ canvas.areas
            best = best * (inside / canvas.area(union).clamp(min=1)).to(best)
        keep &= best >= self.instance_min_score
        union, best, column = union[keep], best[keep], column[keep]
        order = best.argsort(descending=True, stable=True)
        union, best, labels = union[order], best[order], scores.thing_classes[column[order]]
        member = member[keep][order]
        boxes = canvas.hulls(member)
        if self.nms_iou is not None:
            kept = batched_nms(boxes, best.float(), labels, self.nms_iou)
            union, labels, best, boxes = union[kept], labels[kept], best[kept], boxes[kept]
            member = member[kept]
        masks = canvas.paint_many(union)
        return InstanceData(masks=masks, bboxes=boxes, labels=labels, scores=best, members=member)

    def _rows(self, scores: ImageScores, semantic: bool = True) -> Rows:
        """What may be in the panoptic result: instance queries, and semantic ones of stuff."""
        labels, probs = scores.thing_classes[:0], scores.instance.new_zeros(0)
        logits = scores.affinity_instance[:0]
        if scores.instance.numel():
            probs, column = scores.instance.max(dim=1)
            labels, logits = scores.thing_classes[column], scores.affinity_instance
        if semantic:
            stuff = ~torch.isin(scores.semantic_classes, scores.thing_classes)
            labels = torch.cat([labels, scores.semantic_classes[stuff]])
            probs = torch.cat([probs, scores.semantic[stuff]])
            logits = torch.cat([logits, scores.affinity_semantic[stuff]])
        if not logits.shape[1]:
            return Rows(labels[:0], probs[:0], logits[:0])
        keep = probs > self.panoptic_score
        keep &= logits.amax(dim=1).sigmoid() > self.panoptic_affinity
        labels, probs, logits = labels[keep], probs[keep], logits[keep]
        order = probs.argsort(descending=True, stable=True)[: self.panoptic_top_k]
        return Rows(labels[order], probs[order], logits[order])

    def merge_panoptic(self, scores: ImageScores, canvas: Canvas) -> PanopticResult:
        """One segment per pixel: instances of things, and the region of each stuff class.

        Each pixel goes to the best row that claims it. A row that wins too little of its own area
        is dropped, and its pixels are left without a segment.
        """
        rows = self._rows(scores)
        union = canvas.union(self.merged(rows.affinity))  # (R, A)
        table = torch.zeros(len(canvas.areas), dtype=torch.long, device=canvas.areas.device)
        if not len(union):
            none = rows.labels
            return PanopticResult(canvas.paint(table), none, none, rows.scores)
        best, winner = self._winners(rows.affinity, rows.scores, canvas, self.panoptic_pixel)
        won = torch.zeros_like(rows.scores, dtype=torch.double)
        won.index_add_(0, winner, canvas.areas * (best > 0))
        valid = (won > 0) & (won >= self.overlap_threshold * canvas.area(union))
        number = valid.cumsum(dim=0) * valid  # (R,) id of each segment, 0 for a dropped one
        table = number[winner] * (best > 0)
        ids = torch.arange(1, int(valid.sum()) + 1, device=table.device)
        return PanopticResult(canvas.paint(table), ids, rows.labels[valid], rows.scores[valid])


def _labelled(best: Tensor, winner: Tensor, classes: Tensor, void: int) -> Tensor:
    """(A,) class of the row that wins each atom, `void` where none claims it."""
    if not len(classes):
        return torch.full_like(winner, void)
    return classes[winner].masked_fill(best <= 0, void)


def _labels_of(result: PanopticResult, void: int) -> Tensor:
    """Label map (H, W) of a panoptic result."""
    table = torch.cat([result.labels.new_full((1,), void), result.labels])
    return table[result.seg_map]


def _patches(sample) -> PatchSet:
    """The patches that the model saw, in its order."""
    patches, found = sample.get('patch_set'), sample.get('patches')
    if patches is None or found is None or 'ids' not in found:
        raise UserError(
            f"{sample.get('img_path', 'a sample')}: expected 'patch_set' and 'patches' with ids, "
            f'found {sorted(sample.keys())}. Put LoadPatches into the test pipeline and '
            f'PackPatchInputs at its end.'
        )
    return patches.select(found.ids.cpu().numpy())
