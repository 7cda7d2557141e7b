"""What SAM-CP says of single patches: each is the only one of its image (Figure 5)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmprompt.methods.samcp.canvas import Canvas
from mmprompt.methods.samcp.detector import SAMCPDetector
from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.predict import ImageScores, Rescore, SAMCPPredictor
from mmprompt.methods.samcp.structures import SAMCPOutput

#: Patches that go through the head together; memory and speed only.
AT_ONCE = 16


class ScoreKeeper:
    """A predictor that also keeps what results are made of, of one image after the other.

    Args:
        predictor: what makes the results.

    Attributes:
        scores: `ImageScores` of each image, CLIP's part included.
    """

    def __init__(self, predictor: SAMCPPredictor) -> None:
        self._predictor = predictor
        self.scores: list[ImageScores] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):  # not there yet while one is copied
            raise AttributeError(name)
        return getattr(self._predictor, name)

    def __call__(
        self, output: SAMCPOutput, samples: Sequence, rescore: Rescore | None = None
    ) -> Sequence:
        """As `SAMCPPredictor`."""

        def note(image: int, scores: ImageScores, canvas: Canvas) -> ImageScores:
            self.scores.append(scores if rescore is None else rescore(image, scores, canvas))
            return self.scores[-1]

        return self._predictor(output, samples, note)


@torch.no_grad()
def scores_alone(model: SAMCPDetector, batch: dict, rows: Tensor) -> Tensor:
    """Scores of patches, the model being given one and no other; the backbone runs once.

    Args:
        model: in evaluation mode.
        batch: of one image, as a data loader gives it.
        rows: (R,) which of its patches.

    Returns:
        (R, C) the score of each thing class, 0 of the others.
    """
    data = model.data_preprocessor(batch, False)
    (sample,), inputs = data['data_samples'], data['inputs']
    features, views = model.encode(inputs, [sample.metainfo])
    silent = copy.copy(model.predictor)
    silent.semantic = silent.instances = silent.panoptic = False
    keeper = ScoreKeeper(silent)
    for some in rows.cpu().split(AT_ONCE) if len(rows) else ():
        samples = [_with_patch(sample, row) for row in some.tolist()]
        model.answer(_repeated(features, len(some)), views * len(some), samples, keeper)
    found = inputs.new_zeros(len(rows), model.head.num_classes)
    for row, scores in zip(found, keeper.scores):
        row[scores.thing_classes] = scores.instance[0].to(row)
    return found


def _with_patch(sample: Any, row: int) -> Any:
    """The sample with one patch and no other."""
    alone = type(sample)(metainfo=sample.metainfo)
    kept = {name: value[row : row + 1] for name, value in sample.patches.items()}
    alone.patches, alone.patch_set = InstanceData(**kept), sample.patch_set
    return alone


def _repeated(features: ImageFeatures, count: int) -> ImageFeatures:
    """The maps of one image as those of several."""
    (levels,) = features.groups
    # width and height to which the image was padded, of its own and its share of the maps
    padded = (features.sizes[0].flip(0) / features.share[0]).round().int().tolist()
    shown = [level.expand(count, *level.shape[1:]) for level in levels]
    return ImageFeatures([(shown, range(count), padded[::-1])], features.sizes.expand(count, 2))
