"""What SAM-CP says of single patches: each is the only one of its image (Figure 5)."""

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmprompt.methods.samcp.detector import SAMCPDetector
from mmprompt.methods.samcp.features import ImageFeatures

#: Patches that go through the head together; memory and speed only.
AT_ONCE = 16


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
    found = []
    for some in rows.to(sample.patches.bboxes.device).split(AT_ONCE):
        samples = [_with_patch(sample, int(row)) for row in some]
        scores = model.scores(_repeated(features, len(some)), views * len(some), samples)
        for each in scores:
            row = each.instance.new_zeros(model.head.num_classes)
            row[each.thing_classes] = each.instance[0]
            found.append(row)
    return torch.stack(found) if found else inputs.new_zeros(0, model.head.num_classes)


def _with_patch(sample, row: int):
    """The sample with that patch alone."""
    alone = sample.new()
    patches = sample.patches
    alone.patches = InstanceData(**{k: v[row : row + 1] for k, v in patches.items()})
    alone.patch_set = sample.patch_set
    return alone


def _repeated(features: ImageFeatures, count: int) -> ImageFeatures:
    """The maps of one image as those of several."""
    (levels,) = features.groups
    (height, width), share = features.sizes[0], features.share[0].flip(0)
    padded = (round(float(height / share[0])), round(float(width / share[1])))
    shown = [level.expand(count, *level.shape[1:]) for level in levels]
    return ImageFeatures([(shown, range(count), padded)], features.sizes.expand(count, 2))
