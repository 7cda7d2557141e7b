"""Maps of a batch of unequal images, and what RoIAlign reads from them for all boxes at once."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from mmprompt.common.matching import at_least_float

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
        return sum(level[..., 0, 0].sum() * 0 for levels in self.groups for level in levels)


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

    def forward(self, features: ImageFeatures, boxes: Tensor, valid: Tensor) -> Tensor:
        """Read the boxes that are there.

        Args:
            boxes: (B, M, 4) normalised.
            valid: (B, M) bool; V of them are True.

        Returns:
            (V, D, size, size), row by row of ``valid``.
        """
        image = valid.nonzero()[:, 0]  # (V,)
        with torch.autocast(boxes.device.type, enabled=False):
            boxes = (boxes * features.scale[:, None]).to(features.scale.dtype)[valid]  # (V, 4)
            rois = torch.cat([features.row[image, None].to(boxes), boxes], dim=1)  # (V, 5)
            # Sorted by group and level, they are read in a few calls; one transfer tells how many.
            place = features.group[image] * features.num_levels + self.level(boxes)
            order = place.argsort(stable=True)
            counts = torch.bincount(place, minlength=len(features.groups) * features.num_levels)
            parts = zip(
                product(features.groups, range(features.num_levels)),
                rois[order].split(counts.tolist()),
            )
            read = [
                self._align(levels[index], part, index)
                for (levels, index), part in parts
                if len(part)
            ]
            channels = features.groups[0][0].shape[1]
            empty = boxes.new_zeros(0, channels, self.size, self.size)
            found = torch.cat([empty, *read])[order.argsort()]
            return found + features.anchor()

    def level(self, boxes: Tensor) -> Tensor:
        """Which level is read for boxes (V, 4) in pixels, (V,)."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        level = torch.log2(side / self.finest_scale + 1e-6).floor()
        return level.clamp(0, len(self.strides) - 1).long()

    def _align(self, level: Tensor, rois: Tensor, index: int) -> Tensor:
        scale = 1 / self.strides[index]
        return roi_align(level, rois, self.size, spatial_scale=scale, aligned=True)
