"""Batches of unequal images, taken apart so that no image's result depends on its neighbours.

MMSegmentation pads a batch to its largest image. What an image is padded with reaches its result
through every convolution, so each image is cut out again, padded with zeros (after normalisation)
to its own multiple of 32, and computed together with those of the same padded size.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmprompt.common.errors import UserError

STRIDE = 32
Size = tuple[int, int]


class ImageGroup(NamedTuple):
    """Images of one padded size."""

    images: Tensor  # (G, 3, H, W), H and W multiples of 32
    indices: list[int]  # (G,) places in the batch
    sizes: list[Size]  # (G,) (h, w) before padding


def padded(images: Tensor) -> Tensor:
    """(..., H, W) with zeros at the right and bottom, up to multiples of 32."""
    bottom, right = -images.shape[-2] % STRIDE, -images.shape[-1] % STRIDE
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def own_size(canvas: Size, meta: dict) -> Size:
    """(h, w) of an image in the corner of a padded batch, by its meta data.

    Raises:
        UserError: the meta data tell of a larger image than there is.
    """
    size = tuple(int(side) for side in meta.get('img_shape', canvas)[:2])
    if size[0] > canvas[0] or size[1] > canvas[1] or min(size) < 1:
        raise UserError(
            f'{meta.get("img_path") or "an image"}: img_shape says {size}, but the batch has '
            f'{tuple(canvas)} pixels. A transform of the pipeline cut the image and left img_shape '
            f'as it was; set results["img_shape"] there.'
        )
    return size


def image_groups(inputs: Tensor, metas: Sequence[dict]) -> list[ImageGroup]:
    """Images of a batch (B, 3, H, W) by their own padded sizes, without what the batch added.

    Args:
        inputs: normalised images, each in the upper left corner.
        metas: with ``img_shape``; without it an image is the whole of its input.
    """
    sizes = [own_size(tuple(inputs.shape[-2:]), meta) for meta in metas]
    if len(set(sizes)) == 1:
        height, width = sizes[0]
        return [ImageGroup(padded(inputs[..., :height, :width]), list(range(len(sizes))), sizes)]
    images = [padded(image[:, :h, :w]) for image, (h, w) in zip(inputs, sizes)]
    return [
        ImageGroup(torch.stack([images[i] for i in part]), part, [sizes[i] for i in part])
        for part in places([tuple(image.shape) for image in images])
    ]


def places(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of equal keys, in the order in which the keys first come."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return list(found.values())


def step_by_size(step: Callable[[dict], list], data: dict) -> list:
    """`test_step` of a batch that MMSegmentation refuses: images of unequal sizes.

    Args:
        step: the model's `test_step` or `val_step`, called with images of one size at a time.
        data: what a data loader gives, ``inputs`` a list of (3, H, W).
    """
    inputs = data['inputs']
    parts = places([tuple(image.shape) for image in inputs])
    if isinstance(inputs, Tensor) or len(parts) == 1:
        return step(data)
    results: list = [None] * len(inputs)
    for part in parts:
        found = step({key: [values[i] for i in part] for key, values in data.items()})
        for index, result in zip(part, found):
            results[index] = result
    return results
