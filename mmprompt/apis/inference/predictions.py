"""What a prediction is to its user: plain objects, arrays and names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from torch import Tensor

from mmprompt.common.mask_merge import InstanceResult, PanopticResult
from mmprompt.common.results import add_instances, add_panoptic
from mmprompt.methods.ssprompt.prompt_sets import PromptSet


@dataclass(frozen=True)
class Segment:
    """One region of a picture.

    Attributes:
        id: its value in `Prediction.label_map`; for instances its place, from 1.
        category_id: index of its class.
        category: name of its class.
        score: in [0, 1] for segments and instances; of a semantic class, the mean of the score S
            over its pixels, which is no probability.
        is_thing: counted one by one.
        mask: (H, W) bool.
        parent: id of the segment that it is a part of, see `finer`; None without.
        patches: what it was merged from, plain values, see `patch_scores`; None if nobody asked.
    """

    id: int
    category_id: int
    category: str
    score: float
    is_thing: bool
    mask: np.ndarray = field(repr=False)
    parent: int | None = None
    patches: tuple[dict, ...] | None = field(default=None, repr=False)

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    def as_dict(self) -> dict[str, Any]:
        """COCO's annotation: `segmentation` is compressed RLE (pycocotools), `bbox` is x y w h."""
        rle = coco_mask.encode(np.asfortranarray(self.mask, np.uint8))
        more = {k: v for k in ('parent', 'patches') if (v := getattr(self, k)) is not None}
        return dict(
            id=self.id,
            category_id=self.category_id,
            category=self.category,
            score=round(self.score, 6),
            isthing=int(self.is_thing),
            area=int(coco_mask.area(rle)),
            bbox=[float(v) for v in coco_mask.toBbox(rle)],
            segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode()),
            **more,
        )


@dataclass(frozen=True)
class Prediction:
    """One picture under one prompt.

    Attributes:
        prompt: name of the prompt set.
        task: 'semantic', 'panoptic' or 'instance'.
        classes: C names.
        things: indices of countable classes.
        size: (H, W) of the picture, as it is viewed.
        label_map: (H, W) int64. Semantic: class indices, -1 where there is none. Panoptic: ids of
            segments, 0 where there is none. None for instances, which may overlap.
        scores: semantic (C,): the mean of the score S over the pixels that a class won, of SAM-CP
            the probability that the class is in the picture; panoptic (S,) and instance (K,): of
            each segment.
        parents: of each segment or instance, the id of that which it is a part of; None without.
        patches: of each instance, what it was merged from; None without.
    """

    prompt: str
    task: str
    classes: tuple[str, ...]
    things: tuple[int, ...]
    size: tuple[int, int]
    label_map: np.ndarray | None = field(repr=False)
    scores: np.ndarray = field(repr=False)
    _result: Any = field(repr=False)
    parents: tuple[int, ...] | None = field(default=None, repr=False)
    patches: tuple[tuple[dict, ...], ...] | None = field(default=None, repr=False)

    @classmethod
    def make(
        cls, prompts: PromptSet, task: str, things: Sequence[int], result: Any
    ) -> 'Prediction':
        """From an answer of `ManyPrompts.segment`, brought to the CPU."""
        parts = [value.cpu() if isinstance(value, Tensor) else value for value in result]
        result = type(result)(*parts) if hasattr(result, '_fields') else tuple(parts)
        scores = result[1] if task == 'semantic' else result.scores
        return cls(
            prompts.name,
            task,
            prompts.classes,
            tuple(things),
            tuple(result[0].shape[-2:]),
            None if task == 'instance' else result[0].numpy(),
            scores.float().numpy(),
            result,
        )

    @classmethod
    def of_sample(
        cls, task: str, sample: Any, classes: Sequence[str], things: Sequence[int]
    ) -> 'Prediction':
        """From a sample with ``pred_instances``, or ``pred_panoptic_seg`` and ``pred_segments``.

        Args:
            task: 'instance' or 'panoptic', also the name of the prompt set.
            sample: its results are at the size of the picture.
            classes: C names.
            things: indices of countable classes.
        """
        if task == 'panoptic':
            found = sample.pred_segments
            values = (sample.pred_panoptic_seg.data[0], found.ids, found.labels, found.scores)
            result = PanopticResult(*(value.cpu() for value in values))
            size, label_map = result.seg_map.shape, result.seg_map.numpy()
        else:
            found = sample.pred_instances
            result = InstanceResult(found.masks.cpu(), found.labels.cpu(), found.scores.cpu())
            size, label_map = result.masks.shape[-2:], None
        return cls(
            task, task, tuple(classes), tuple(things), tuple(size), label_map,
            result.scores.float().numpy(), result,
        )  # fmt: skip

    @property
    def segments(self) -> Iterator[Segment]:
        """Regions: the classes that are there, segments, or instances in falling order of score."""
        for place, (number, index, score, mask) in enumerate(self._regions()):
            name, thing = self.classes[index], index in self.things
            parent, patches = (each and each[place] for each in (self.parents, self.patches))
            yield Segment(number, index, name, float(score), thing, mask, parent, patches)

    def _regions(self) -> Iterator[tuple[int, int, float, np.ndarray]]:
        if self.task == 'semantic':
            for index in np.unique(self.label_map[self.label_map >= 0]).tolist():
                yield index, index, self.scores[index], self.label_map == index
            return
        found = self._result
        if isinstance(found, PanopticResult):
            for number, index, score in zip(*(t.tolist() for t in found[1:])):
                yield number, index, score, self.label_map == number
            return
        for place, (mask, index, score) in enumerate(zip(*found)):
            yield place + 1, int(index), float(score), mask.numpy()

    @cached_property
    def class_map(self) -> np.ndarray | None:
        """(H, W) class indices, -1 where there is none; None for instances."""
        if not isinstance(self._result, PanopticResult):
            return self.label_map
        table = np.full(len(self._result.ids) + 1, -1)
        table[1:] = self._result.labels.numpy()
        return table[self.label_map]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(
            prompt=self.prompt,
            task=self.task,
            height=self.size[0],
            width=self.size[1],
            segments=[segment.as_dict() for segment in self.segments],
        )

    def to_data_sample(self) -> SegDataSample:
        """The same as MMSegmentation has it: `pred_sem_seg`, or the fields of `common.results`.

        Pixels of no class are 255 in `pred_sem_seg`, or C if that is more.
        `common.results.to_det_sample` makes MMDetection's sample of it.
        """
        meta = dict(img_shape=self.size, ori_shape=self.size, classes=self.classes)
        sample = SegDataSample(metainfo=meta)
        if self.task == 'semantic':
            void = max(255, len(self.classes))  # "ignored" in MMSegmentation, and no class
            labels = np.where(self.label_map < 0, void, self.label_map)
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        elif isinstance(self._result, PanopticResult):
            add_panoptic(sample, self._result, len(self.classes), self.things)
        elif isinstance(self._result, InstanceResult):
            add_instances(sample, self._result)
        return sample
