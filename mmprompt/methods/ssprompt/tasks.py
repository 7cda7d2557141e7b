"""What is learned from, and answered with, in semantic, instance and panoptic segmentation.

The three tasks share model, prompts and decoding. A task knows its loss and what it asks of the
samples; what a prediction holds is `Answers`.

Notation: B images, Q queries, C classes, T true masks of the batch, (H, W) input pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.common.matching import MaskTargets
from mmprompt.common.processes import mean_count
from mmprompt.common.results import add_instances, add_panoptic
from mmprompt.common.upsampling import MASK_STRIDE, Maps
from mmprompt.foundation.seem import SEEMFeatures, SEEMOutput
from mmprompt.methods.ssprompt.losses import SSPromptMaskLoss, SSPromptSemanticLoss
from mmprompt.methods.ssprompt.scores import (
    scores_of_labels,
    scores_of_pixels,
    scores_then_size,
)

SEMANTIC, INSTANCE, PANOPTIC = TASKS = ('semantic', 'instance', 'panoptic')

ROUNDING = 1e-6
Size = tuple[int, int]
#: Features of images of one padded size, and the (h, w) of each image before padding.
Group = tuple[SEEMFeatures | Sequence[Tensor], Sequence[Size]]
#: `SEEMPromptHead.decode`.
Decode = Callable[..., SEEMOutput]


class SemanticTask:
    """Cross-entropy of the semantic scores with `gt_sem_seg` (Eq. 9).

    Args:
        loss: of scores and labels.
        num_classes: C.
        resize: see `scores.TRAIN_RESIZES`.
        align_corners: of the resize.
    """

    name = SEMANTIC

    def __init__(
        self, loss: SSPromptSemanticLoss, num_classes: int, resize: Callable, align_corners: bool
    ) -> None:
        self.loss, self.num_classes = loss, num_classes
        self.resize, self.align_corners = resize, align_corners

    def sizes(self, samples: Sequence[SegDataSample]) -> list[Size]:
        """(H, W) of the truth of each sample."""
        return [tuple(s.gt_sem_seg.data.shape[-2:]) for s in samples]

    def losses(
        self, decode: Decode, groups: Sequence[Group], samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        """Loss and pixel accuracy in per cent; of unequal images, that of all their pixels.

        Args:
            decode: features -> prediction under the prompts.
            groups: images of equal padded size together.
            samples: in the order of the groups, labels in the upper left corner.
        """
        label = self._labels(samples)
        picks = isinstance(self.loss, SSPromptSemanticLoss) and self.loss.mode == 'nll'
        if picks and self.resize is scores_then_size:
            return self._picked(decode, groups, label)
        sizes = {size for _, found in groups for size in found}
        if len(sizes) == 1 and len(groups) == 1:
            (height, width), (features, _) = sizes.pop(), groups[0]
            scores = self._scores(decode(features), (height, width))
            return self._values(scores, label[:, :height, :width])
        scores, labels = [], []
        for features, sizes in groups:
            whole = self._scores(decode(features), tuple(map(max, zip(*sizes))))
            for image, (height, width) in zip(whole, sizes):
                labels.append(label[len(labels), :height, :width].flatten())
                scores.append(image[:, :height, :width].flatten(1))  # (C, h * w)
        # (1, C, 1, N) and (1, 1, N)
        return self._values(torch.cat(scores, dim=1)[None, :, None], torch.cat(labels)[None, None])

    def _picked(self, decode: Decode, groups: Sequence[Group], label: Tensor) -> dict[str, Tensor]:
        """`losses` from the scores of the labels alone."""
        parts, start = [], 0
        for features, sizes in groups:
            canvas = tuple(map(max, zip(*sizes)))
            part = label.new_full((len(sizes), *canvas), self.loss.ignore_index)
            for row, whole, (height, width) in zip(part, label[start:], sizes):
                row[:height, :width] = whole[:height, :width]
            start += len(sizes)
            output = decode(features)
            known = part.masked_fill(part == self.loss.ignore_index, 0)
            found = scores_of_labels(
                output.pred_logits, output.pred_masks, known, self.align_corners
            )
            parts.append([values.flatten() for values in (*found, part)])
        chosen, total, best, label = map(torch.cat, zip(*parts))
        labelled = label != self.loss.ignore_index
        # Two ways of adding up the same four cells: equal but for rounding.
        right = (chosen.detach() >= best * (1 - ROUNDING)) & labelled
        return {
            self.loss.loss_name: self.loss.of_picked(chosen, total, label, self.num_classes),
            'acc_seg': 100.0 * right.sum() / mean_count(labelled.sum()),
        }

    def _scores(self, output: SEEMOutput, size: Size) -> Tensor:
        logits, masks = output.pred_logits, output.pred_masks
        return scores_of_pixels(logits, masks, size, self.resize, self.align_corners)

    def _values(self, scores: Tensor, label: Tensor) -> dict[str, Tensor]:
        accuracy = self._accuracy(scores.detach(), label)
        return {self.loss.loss_name: self.loss(scores, label), 'acc_seg': accuracy}

    def _accuracy(self, scores: Tensor, label: Tensor) -> Tensor:
        """Per cent of the labelled pixels whose class has the highest score.

        Its mean over processes is that of all their pixels.
        """
        labelled = label != self.loss.ignore_index
        chosen = scores.gather(1, label.masked_fill(~labelled, 0)[:, None])[:, 0]
        # Comparing with the maximum is 30 times as fast on a CPU as looking for its place.
        right = (chosen == scores.amax(dim=1)) & labelled
        return 100.0 * right.sum() / mean_count(labelled.sum())

    def _labels(self, samples: Sequence[SegDataSample]) -> Tensor:
        """Labels (B, H, W), checked against the classes."""
        ignore = self.loss.ignore_index
        label = torch.stack([s.gt_sem_seg.data.squeeze(0) for s in samples]).long()
        wrong = (label != ignore) & ((label < 0) | (label >= self.num_classes))
        if wrong.any():
            first = int(wrong.flatten(1).any(dim=1).nonzero()[0])
            value = int(label[first][wrong[first]][0])
            path = samples[first].metainfo.get('seg_map_path', 'a label map')
            raise UserError(
                f'{path}: label {value} is no class; expected 0 to {self.num_classes - 1} or '
                f'{ignore} (ignored). Map the labels to the classes of the dataset.'
            )
        return label


class MaskTask:
    """Cross-entropy of classes and binary cross-entropy of masks, on matched queries.

    Truth are the segments of `gt_panoptic_seg` and `gt_segments`, as `PackPanopticInputs` writes
    them. Crowds are no targets; their pixels, void ones and what an image was padded with count
    neither for nor against a mask. In instance segmentation the targets are things, everything else
    that is labelled is background, and the class loss compares things and "no object" alone: a
    query that answers for stuff is right not to be a thing, and need not be "no object".

    Args:
        name: 'instance' or 'panoptic'.
        loss: of a prediction and its targets.
        num_classes: C.
        things: classes counted one by one.
    """

    def __init__(
        self, name: str, loss: SSPromptMaskLoss, num_classes: int, things: Sequence[int]
    ) -> None:
        self.name, self.loss, self.num_classes = name, loss, num_classes
        self.things = sorted(things)

    def sizes(self, samples: Sequence[SegDataSample]) -> list[Size]:
        """(H, W) of the truth of each sample."""
        self._check(samples)
        return [tuple(s.gt_panoptic_seg.data.shape[-2:]) for s in samples]

    def losses(
        self, decode: Decode, groups: Sequence[Group], samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        """Losses of the whole batch, of the last prediction and the earlier ones.

        Args:
            decode: features -> prediction under the prompts, with `aux`.
            groups: images of equal padded size together.
            samples: in the order of the groups.
        """
        self._check(samples)
        aux = self.loss.num_aux != 0
        output = _joined([decode(features, aux=aux) for features, _ in groups])
        sizes = [size for _, found in groups for size in found]
        height, width = (MASK_STRIDE * side for side in output.mask_features.shape[-2:])
        targets = self._targets(samples, sizes, (height, width))
        if self.name == INSTANCE:
            output, targets = self._among_things(output, targets)
        return self.loss(output, targets)

    def _check(self, samples: Sequence[SegDataSample]) -> None:
        for sample in samples:
            if 'gt_panoptic_seg' not in sample or 'gt_segments' not in sample:
                raise UserError(
                    f"model.decode_head.task {self.name!r}: expected 'gt_panoptic_seg' and "
                    f"'gt_segments' in {sample.get('img_path', 'every sample')}, found neither. "
                    f'Load them in the training pipeline: LoadCityscapesPanoptic behind '
                    f'LoadAnnotations (or LoadAnnotationsFromCocoPanoptic), PackPanopticInputs in '
                    f'place of PackSegInputs.'
                )
            segments = sample.gt_segments
            things = torch.isin(segments.labels, segments.labels.new_tensor(self.things))
            wrong = things != segments.is_thing
            if wrong.any() or (segments.labels >= self.num_classes).any():
                found = sorted(set(segments.labels[segments.is_thing].tolist()))
                raise UserError(
                    f'{sample.get("img_path", "a sample")}: expected things among '
                    f'model.decode_head.thing_classes {self.things} of {self.num_classes} classes, '
                    f'found things {found} among {sorted(set(segments.labels.tolist()))}. Give the '
                    f'pipeline and the model the same thing_classes.'
                )

    def _targets(
        self, samples: Sequence[SegDataSample], sizes: Sequence[Size], canvas: Size
    ) -> MaskTargets:
        """True masks and ignored pixels on the padded canvas (H, W)."""
        masks, labels, ignored = [], [], []
        for sample, size in zip(samples, sizes):
            panoptic_map = sample.gt_panoptic_seg.data[0]
            if tuple(panoptic_map.shape) != tuple(size):
                raise UserError(
                    f'{sample.get("img_path", "a sample")}: expected a panoptic map of the image '
                    f'size {tuple(size)}, found {tuple(panoptic_map.shape)}. Load it before any '
                    f'resizing in the training pipeline.'
                )
            single = ~sample.gt_segments.is_crowd
            mask = panoptic_map == sample.gt_segments.ids[single][:, None, None]  # (N, h, w)
            pad = (0, canvas[1] - size[1], 0, canvas[0] - size[0])
            ignored.append(F.pad(~mask.any(0), pad, value=True))
            wanted = sample.gt_segments.is_thing[single]
            if self.name == PANOPTIC:
                wanted = torch.ones_like(wanted)
            masks.append(F.pad(mask[wanted], pad))
            labels.append(sample.gt_segments.labels[single][wanted])
        return replace(MaskTargets.from_lists(masks, labels), ignore=torch.stack(ignored))

    def _among_things(
        self, output: SEEMOutput, targets: MaskTargets
    ) -> tuple[SEEMOutput, MaskTargets]:
        """The same with the columns of things and "no object" alone."""
        columns = output.pred_logits.new_tensor([*self.things, self.num_classes], dtype=torch.long)

        def part(one: SEEMOutput) -> SEEMOutput:
            return replace(one, pred_logits=one.pred_logits[..., columns], aux=[])

        few = part(output)
        few.aux = [part(one) for one in output.aux]
        return few, replace(targets, labels=torch.searchsorted(columns, targets.labels))


def _joined(outputs: Sequence[SEEMOutput]) -> SEEMOutput:
    """Predictions of several padded sizes as one batch; the smaller get empty cells."""
    if len(outputs) == 1:
        return outputs[0]
    height, width = (max(o.mask_features.shape[side] for o in outputs) for side in (-2, -1))
    features = torch.cat(
        [
            F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
            for x in (o.mask_features for o in outputs)
        ]
    )

    def join(parts: Sequence[SEEMOutput]) -> SEEMOutput:
        logits, embed, queries = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ('pred_logits', 'mask_embed', 'queries')
        )
        return SEEMOutput(logits, embed, features, queries)

    whole = join(outputs)
    whole.aux = [join(parts) for parts in zip(*(o.aux for o in outputs))]
    return whole


@dataclass(frozen=True)
class Answers:
    """What a prediction holds, all from one decoding.

    Attributes:
        semantic: `pred_sem_seg`.
        panoptic: `pred_panoptic_seg` and `pred_segments`.
        instances: `pred_instances`.
        things: classes counted one by one.
        panoptic_options, instance_options: of `mask_merge.panoptic` and `mask_merge.instances`.
    """

    semantic: bool
    panoptic: bool
    instances: bool
    things: tuple[int, ...]
    panoptic_options: dict = field(default_factory=dict)
    instance_options: dict = field(default_factory=dict)

    @classmethod
    def read(cls, test_cfg: Mapping, task: str, things: Sequence[int]) -> 'Answers':
        """From `test_cfg`; without a word there, the label map and what the task is about.

        Raises:
            UserError: instances or segments are asked for without things, or in sliding windows.
        """
        found = cls(
            test_cfg.get('semantic', True),
            test_cfg.get('panoptic', task == PANOPTIC),
            test_cfg.get('instances', task == INSTANCE),
            tuple(things),
            {k: test_cfg[k] for k in ('score_threshold', 'overlap_threshold') if k in test_cfg},
            {k: test_cfg[k] for k in ('top_k',) if k in test_cfg},
        )
        if (found.panoptic or found.instances) and not found.things:
            raise UserError(
                'model.test_cfg asks for panoptic or instance results: expected the classes that '
                'are counted one by one in model.decode_head.thing_classes, found none. Name them.'
            )
        if (found.panoptic or found.instances) and test_cfg.get('mode') == 'slide':
            raise UserError(
                "model.test_cfg.mode 'slide': expected the label map alone, since windows share no "
                'queries, found panoptic=True or instances=True (or a task that means them). Set '
                "mode='whole'."
            )
        return found

    def add(self, sample: SegDataSample, logits: Tensor, maps: Maps) -> None:
        """Add segments and instances to a sample.

        Args:
            sample: of one image.
            logits: (Q, C+1).
            maps: mask logits (Q, H, W) at the size of the answer.
        """
        if self.panoptic:
            result = mask_merge.panoptic(logits, maps, self.things, **self.panoptic_options)
            add_panoptic(sample, result, logits.shape[-1] - 1, self.things)
        if self.instances:
            result = mask_merge.instances(
                logits, maps, thing_classes=self.things, **self.instance_options
            )
            add_instances(sample, result)
