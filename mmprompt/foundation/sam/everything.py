"""SAM's everything mode: points all over an image -> masks -> the good ones, each once.

The steps are those of the published generator; the paper changes some thresholds (Sec. 4.1,
appendix B). Stability is that of a mask at the resolution of the image, as published. All of it
happens on the model's device, in batches of points. The order is another where that costs less and
changes nothing: a mask whose predicted quality is too low is never drawn, and run lengths are made
of the masks that remain at the end.

Notation: n points, M masks of a point, k candidates, (H, W) pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from mmprompt.common.patches import PatchSet, encode
from mmprompt.foundation.sam.crops import CROPS, View, views
from mmprompt.foundation.sam.prompter import Prompter, Seen, enlarge
from mmprompt.foundation.sam.sam import point_grid

#: Pixels from the edge of a crop within which a box counts as cut by it.
EDGE = 20


@dataclass(frozen=True)
class EverythingSettings:
    """What decides which patches come out; the paper's values.

    Attributes:
        points_per_side: of the grid over the image and over each crop.
        min_quality: masks are kept whose predicted IoU is above it; all with 0.
        min_stability: and whose area changes little where the threshold on the logits is moved by
            `stability_offset` up and down: the ratio of the two areas is at least this.
        stability_offset: see `min_stability`.
        nms_iou: of two boxes that overlap more the one of higher quality stays.
        crops, wide: see `views`.
        crop_nms_iou: as `nms_iou` between crops, where the smaller crop wins.
        denser: rounds of denser points (Fig. 6), each twice as dense as what was before, where no
            patch lies or a small one.
        small_area: share of the image up to which a patch is small.
    """

    points_per_side: int = 48
    min_quality: float = 0.8
    min_stability: float = 0.9
    stability_offset: float = 1.0
    nms_iou: float = 0.7
    crops: str = 'long-side'
    wide: float = 2.0
    crop_nms_iou: float = 0.7
    denser: int = 0
    small_area: float = 0.001

    def __post_init__(self) -> None:
        for name in ('min_quality', 'min_stability', 'nms_iou', 'crop_nms_iou', 'small_area'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} lies between 0 and 1, not {getattr(self, name)}')
        if self.points_per_side < 1 or self.denser < 0:
            raise ValueError('points_per_side is at least 1 and denser at least 0')
        if self.crops not in CROPS:
            raise ValueError(f'crops are one of {", ".join(CROPS)}, not {self.crops!r}')


@dataclass
class _Candidates:
    """Masks of one view that passed the filters."""

    logits: Tensor  # (k, g, g) over the square
    quality: Tensor  # (k,)
    boxes: Tensor  # (k, 4) xyxy of whole pixels of the view, x2 and y2 the last ones

    @classmethod
    def joined(cls, parts: list['_Candidates']) -> '_Candidates':
        names = ('logits', 'quality', 'boxes')
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, index: Tensor) -> '_Candidates':
        return _Candidates(self.logits[index], self.quality[index], self.boxes[index])


@torch.inference_mode()
def everything(
    prompter: Prompter,
    image: np.ndarray,
    settings: EverythingSettings = EverythingSettings(),
    batch: int = 64,
) -> PatchSet:
    """The patches of an image, those of high quality first.

    Args:
        prompter: a model that answers points.
        image: RGB (H, W, 3) uint8.
        settings: see there.
        batch: points that are decoded at once; it decides memory and speed only.
    """
    size = image.shape[:2]
    rles, quality, boxes, areas = [], [], [], []
    for view in views(size, settings.crops, settings.wide):
        x1, y1, x2, y2 = view
        seen = prompter.see(np.ascontiguousarray(image[y1:y2, x1:x2]))
        kept = _patches_of_view(prompter, seen, view, size, settings, batch)
        rles += _run_lengths(kept.logits, seen, view, size, batch)
        quality.append(kept.quality)
        boxes.append(kept.boxes + kept.boxes.new_tensor([x1, y1, x1, y1]))
        areas += [(x2 - x1) * (y2 - y1)] * len(kept.quality)
    scores, joined = torch.cat(quality), torch.cat(boxes)
    if len(boxes) > 1:
        prefer_small = 1 / torch.tensor(areas, dtype=torch.float32, device=joined.device)
        kept = nms(joined, prefer_small, settings.crop_nms_iou)
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
    else:
        kept = torch.arange(len(joined))
    scores = scores[kept.to(scores.device)].cpu().numpy()
    return PatchSet.from_rles([rles[i] for i in kept.tolist()], size, scores)


def _patches_of_view(
    prompter: Prompter,
    seen: Seen,
    view: View,
    size: tuple[int, int],
    settings: EverythingSettings,
    batch: int,
) -> _Candidates:
    """Candidates of all rounds of points, each thing once."""
    points = point_grid(settings.points_per_side).to(prompter.device)
    found, asked = [], settings.points_per_side
    for further in range(settings.denser + 1):
        for some in points.split(batch):
            found.append(_candidates(prompter, seen, some, view, size, settings, batch))
        all_found = _Candidates.joined(found)
        kept = all_found[nms(all_found.boxes, all_found.quality, settings.nms_iou)]
        if further == settings.denser:
            break
        asked *= 2
        points = _wanting(kept.logits, seen, asked, settings.small_area)
        if not len(points):
            break
    return kept


def _candidates(
    prompter: Prompter,
    seen: Seen,
    points: Tensor,
    view: View,
    size: tuple[int, int],
    settings: EverythingSettings,
    batch: int,
) -> _Candidates:
    """Ask about points (n, 2), and keep the masks that are good and stable."""
    answers = prompter.ask(seen, points)
    quality = answers.quality.flatten()  # (n * M,)
    index = torch.arange(len(quality), device=quality.device)
    if settings.min_quality > 0:
        index = index[quality > settings.min_quality]
    logits = answers.draw(index)
    kept, boxes = [logits.new_zeros(0, dtype=torch.bool)], [logits.new_zeros(0, 4)]
    for some in logits.split(batch):
        large = enlarge(some, seen)  # (k, H, W)
        inner = (large > settings.stability_offset).flatten(1).sum(1)
        outer = (large > -settings.stability_offset).flatten(1).sum(1)
        box, full = mask_boxes(large > 0)
        stable = inner >= settings.min_stability * outer
        kept.append(stable & full & ~_cut(box, view, size))
        boxes.append(box)
    kept = torch.cat(kept)
    return _Candidates(logits[kept], quality[index][kept], torch.cat(boxes)[kept])


def mask_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (k, H, W) bool -> boxes (k, 4) of their first and last pixels, and which have any.

    Boxes are measured between these pixels, without the width of the last one: so published.
    """
    rows, columns = masks.any(2), masks.any(1)  # (k, H), (k, W)
    corners = []
    for line in (columns, rows):
        line = line.to(torch.uint8)
        corners.append((line.argmax(1), line.shape[1] - 1 - line.flip(1).argmax(1)))
    (x1, x2), (y1, y2) = corners
    return torch.stack([x1, y1, x2, y2], dim=1).float(), rows.any(1)


def _cut(boxes: Tensor, view: View, size: tuple[int, int]) -> Tensor:
    """Which boxes of a view end near an edge of it and not near that edge of the image."""
    x1, y1, x2, y2 = view
    boxes = boxes + boxes.new_tensor([x1, y1, x1, y1])
    near_view = (boxes - boxes.new_tensor(view)).abs() <= EDGE
    near_image = (boxes - boxes.new_tensor([0, 0, size[1], size[0]])).abs() <= EDGE
    return (near_view & ~near_image).any(1)


def _wanting(logits: Tensor, seen: Seen, side: int, small_area: float) -> Tensor:
    """Those of a grid of side x side points that lie in no patch, or in a small one.

    Args:
        logits: (k, g, g) of the patches.
        seen: of the image.
        side: points in a row and in a column.
        small_area: share of the image.
    """
    points = point_grid(side).to(logits.device)
    grid = logits.shape[-1]
    shown = [max(1, round(grid * inside / seen.side)) for inside in seen.inside]
    masks = logits[:, : shown[0], : shown[1]] > 0
    columns = (points[:, 0] * shown[1]).long()
    rows = (points[:, 1] * shown[0]).long()
    covers = masks[:, rows, columns]  # (k, side * side)
    area = masks.flatten(1).float().mean(1, keepdim=True)  # (k, 1)
    smallest = torch.where(covers, area, torch.inf)
    smallest = torch.cat([smallest, smallest.new_full((1, len(points)), torch.inf)]).amin(0)
    return points[smallest.isinf() | (smallest <= small_area)]


def _run_lengths(
    logits: Tensor, seen: Seen, view: View, size: tuple[int, int], batch: int
) -> Iterator[bytes]:
    """Compressed counts of the masks in the frame of the image."""
    x1, y1, x2, y2 = view
    for some in logits.split(batch):
        masks = torch.zeros(len(some), size[1], size[0], dtype=torch.bool, device=some.device)
        # Columns first, as COCO codes them.
        masks[:, x1:x2, y1:y2] = (enlarge(some, seen) > 0).transpose(1, 2)
        yield from encode(masks.cpu().numpy().transpose(0, 2, 1))
