"""RoIAlign by two matrix products, for small maps on a CPU.

Bilinear samples at the crossings of a grid, averaged cell by cell, are Y F X^T with one matrix for
the rows and one for the columns of a box. torchvision's kernel goes sample by sample and channel by
channel, and its gradient runs on one core: for the large boxes of query enhancement, which lie on
coarse maps, products are about five times as fast.
"""

import torch
import torchvision
from torch import Tensor

#: Cells of a map up to which products are worth it; they touch all of them for every box.
SMALL = 4000


def roi_align(level: Tensor, row: Tensor, boxes: Tensor, size: int, scale: float) -> Tensor:
    """RoIAlign with half-pixel offsets and as many samples as a cell of the box has pixels.

    Args:
        level: (G, D, h, w).
        row: (V,) which of the G maps each box reads.
        boxes: (V, 4) in pixels.
        size: cells along each side of a result.
        scale: cells of the map per pixel.

    Returns:
        (V, D, size, size).
    """
    if level.device.type == 'cpu' and level.shape[2] * level.shape[3] <= SMALL:
        return roi_align_by_products(level, row, boxes, size, scale)
    rois = torch.cat([row[:, None].to(boxes), boxes], dim=1)  # (V, 5)
    return torchvision.ops.roi_align(level, rois, size, scale, aligned=True)


def roi_align_by_products(
    level: Tensor, row: Tensor, boxes: Tensor, size: int, scale: float
) -> Tensor:
    """See `roi_align`; boxes have no gradient."""
    height, width = level.shape[2:]
    x1, y1, x2, y2 = (boxes.detach() * scale - 0.5).unbind(dim=1)
    down = cell_weights(y1, y2, size, height)  # (V, size, h)
    across = cell_weights(x1, x2, size, width)  # (V, size, w)
    order = row.argsort(stable=True)
    counts = torch.bincount(row, minlength=len(level)).tolist()
    rows = []
    for image, part in zip(level, order.split(counts)):  # a few images
        if len(part):
            image = image.permute(1, 2, 0)  # (h, w, D)
            read = down[part].flatten(0, 1) @ image.flatten(1)  # (v size, w D)
            read = read.unflatten(1, (width, -1)).unflatten(0, (-1, size))  # (v, size, w, D)
            rows.append(across[part][:, None] @ read)  # (v, size, size, D)
    if not rows:
        return level.new_zeros(0, level.shape[1], size, size)
    return torch.cat(rows)[order.argsort()].permute(0, 3, 1, 2)


@torch.no_grad()
def cell_weights(start: Tensor, end: Tensor, size: int, length: int) -> Tensor:
    """How much each of the pixels of an axis counts in each cell of a box.

    Args:
        start, end: (V,) of the boxes, 0 at the centre of the first pixel.
        size: cells of a box.
        length: pixels.

    Returns:
        (V, size, length); a row sums to 1 where its cell is inside, to 0 in a box of no size.
    """
    span = (end - start) / size  # (V,) of a cell
    samples = span.ceil().clamp(min=0)
    most = int(samples.max()) if len(samples) else 0
    index = torch.arange(most, device=start.device, dtype=start.dtype)
    cell = torch.arange(size, device=start.device, dtype=start.dtype)
    within = (index + 0.5) / samples.clamp(min=1)[:, None]  # (V, most) of a cell
    place = (cell[:, None] + within[:, None]) * span[:, None, None] + start[:, None, None]
    counted = (index < samples[:, None])[:, None] & (place >= -1) & (place <= length)
    share = counted / samples.clamp(min=1)[:, None, None]  # (V, size, most)
    # A bilinear sample has the weight 1 - distance of its two neighbours; outside, of the border.
    pixel = torch.arange(length, device=start.device, dtype=start.dtype)
    place = place.clamp(0, length - 1)[..., None]
    near = (1 - (place - pixel).abs()).clamp(min=0)  # (V, size, most, length)
    return (near * share[..., None]).sum(dim=2)
