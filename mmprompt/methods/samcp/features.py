"""Maps of a batch of unequal images, and what RoIAlign reads from them for all boxes at once."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.roi_align import roi_align

Group = tuple[Sequence[Tensor], Sequence[int], tuple[int, int]]


class ImageFeatures:
    """Pyramids of a batch, in groups of images of one padded size.

    Args:
        groups: of each group its levels, (G, D, h_l, w_l) each, finest first, the places of its
            images in the batch, and height and width to which they were padded.
        sizes: (B, 2) height and width of each image in pixels, without padding.

    Attributes:
        groups: the levels, at least float32.
        sizes: (B, 2) as given, of the same type.
        scale: (B, 4) width, height, width, height: what boxes are normalised by.
        group, row: (B,) where the maps of each image are.
        share: (B, 2) which share of the width and height of its maps an image takes.
    """

    def __init__(self, groups: Sequence[Group], sizes: Tensor) -> None:
        # RoIAlign has no half precision on a CPU, and sums over many cells anywhere.
        self.groups = [[at_least_float(level).contiguous() for level in g] for g, _, _ in groups]
        self.sizes = sizes.to(self.groups[0][0])
        self.scale = self.sizes.flip(-1).repeat(1, 2)
        group, row, canvas = [0] * len(sizes), [0] * len(sizes), [(1, 1)] * len(sizes)
        for index, (_, places, padded) in enumerate(groups):
            for order, place in enumerate(places):
                group[place], row[place], canvas[place] = index, order, padded
        self.group, self.row = (torch.tensor(x, device=sizes.device) for x in (group, row))
        self.share = self.scale[:, :2] / self.scale.new_tensor(canvas).flip(-1)

    @property
    def num_levels(self) -> int:
        """L, the same for every group."""
        return len(self.groups[0])

    def anchor(self) -> Tensor:
        """A zero that depends on every map, so that every process has gradients of all of them."""
        return sum(level[:0].sum() for levels in self.groups for level in levels)  # of nothing


class RoIExtractor(nn.Module):
    """RoIAlign of boxes, each from the level that suits its size (FPN's rule).

    A box of side s = sqrt(w h) is read from level floor(log2(s / finest_scale)), at least 0 and at
    most the coarsest.

    Args:
        size: cells along each side of a result.
        strides: pixels per cell of each level.
        finest_scale: sides from twice this on are read from the second level.
    """

    def __init__(
        self, size: int = 7, strides: Sequence[int] = (4, 8, 16, 32), finest_scale: int = 56
    ) -> None:
        super().__init__()
        self.size, self.strides, self.finest_scale = size, tuple(strides), finest_scale

    def forward(self, features: ImageFeatures, image: Tensor, boxes: Tensor) -> Tensor:
        """Read boxes.

        Args:
            image: (V,) which image each box lies in.
            boxes: (V, 4) normalised.

        Returns:
            (V, D, size, size), at least float32.
        """
        with torch.autocast(boxes.device.type, enabled=False):
            boxes = boxes.to(features.scale) * features.scale[image]  # pixels
            # Sorted by group and level, they are read in a few calls; one transfer tells how many.
            place = features.group[image] * features.num_levels + self.level(boxes)
            order = place.argsort(stable=True)
            counts = torch.bincount(place, minlength=len(features.groups) * features.num_levels)
            parts = zip(
                product(features.groups, range(features.num_levels)), order.split(counts.tolist())
            )
            read = [
                roi_align(
                    levels[index],
                    features.row[image[part]],
                    boxes[part],
                    self.size,
                    1 / self.strides[index],
                )
                for (levels, index), part in parts
                if len(part)
            ]
            channels = features.groups[0][0].shape[1]
            empty = boxes.new_zeros(0, channels, self.size, self.size)
            return torch.cat([empty, *read])[order.argsort()] + features.anchor()

    def level(self, boxes: Tensor) -> Tensor:
        """Which level is read for boxes (V, 4) in pixels, (V,)."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        level = torch.log2(side / self.finest_scale + 1e-6).floor()
        return level.clamp(0, len(self.strides) - 1).long()
