"""Random batches for the losses and predictions of SAM-CP, and scenes with real masks."""

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.patches import PatchSet
from mmprompt.methods.samcp.structures import PADDED, DenoisingOutput, SAMCPOutput

IMAGE = (60, 80)  # (H, W)


def random_boxes(draw: torch.Generator, *shape: int, dtype=torch.float64) -> torch.Tensor:
    """(*shape, 4) normalised."""
    corners = torch.rand(*shape, 2, 2, generator=draw, dtype=dtype).sort(dim=-2).values
    return corners.flatten(-2)


def random_sample(
    draw: torch.Generator, units: int, patches: int, classes: int, things: list[int]
) -> SegDataSample:
    """A sample with random overlaps; the first half are instances, the rest regions of classes."""
    instances = units // 2
    labels = torch.cat(
        [
            torch.tensor(things)[torch.randint(len(things), (instances,), generator=draw)],
            torch.randperm(classes, generator=draw)[: units - instances],
        ]
    )
    height, width = IMAGE
    boxes = random_boxes(draw, units, dtype=torch.float32)
    found = InstanceData(
        labels=labels,
        is_instance=torch.arange(units) < instances,
        bboxes=boxes * torch.tensor([width, height, width, height]),
        **{
            name: torch.rand(units, patches, generator=draw).sqrt()
            for name in ('mask_iop', 'box_iop', 'box_iou')
        },
    )
    return SegDataSample(metainfo=dict(img_shape=IMAGE, img_path='a.png'), gt_units=found)


def random_output(
    draw: torch.Generator,
    numbers: list[int],
    classes: int = 5,
    things: list[int] = (1, 3, 4),
    semantic: list[int] | None = None,
    layers: int = 3,
    denoising: int = 0,
    units: list[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> SAMCPOutput:
    """An output for images of `numbers` patches, with gradients; padding holds what it should."""
    batch, most = len(numbers), max(*numbers, 1)
    semantic = list(range(classes)) if semantic is None else semantic
    valid = torch.arange(most) < torch.tensor(numbers)[:, None]

    def logits(*shape: int) -> torch.Tensor:
        return 2 * torch.randn(*shape, generator=draw, dtype=dtype)

    def leaf(x: torch.Tensor) -> torch.Tensor:
        return x.requires_grad_()

    boxes = random_boxes(draw, batch, most, dtype=dtype).masked_fill(~valid[..., None], 0)
    merged = random_boxes(draw, layers, batch, most, dtype=dtype)
    keys, rows = ~valid[None, :, None], ~valid[None, :, :, None]
    noisy = None
    if denoising:
        chosen = [torch.randint(max(k, 1), (denoising,), generator=draw) for k in units]
        noisy = DenoisingOutput(
            logits=leaf(logits(layers, batch, denoising, len(things))),
            affinity=leaf(
                logits(layers, batch, denoising, most).masked_fill(keys, PADDED),
            ),
            units=torch.stack(chosen),
            positive=torch.rand(batch, denoising, generator=draw) > 0.4,
            valid=torch.arange(denoising)
            < torch.tensor([denoising * (k > 0) for k in units])[:, None],
        )
    return SAMCPOutput(
        semantic_logits=leaf(logits(layers, batch, len(semantic))),
        instance_logits=leaf(logits(layers, batch, most, len(things)).masked_fill(rows, PADDED)),
        affinity_semantic=leaf(
            logits(layers, batch, len(semantic), most).masked_fill(keys, PADDED)
        ),
        affinity_instance=leaf(
            logits(layers, batch, most, most).masked_fill(keys, PADDED).masked_fill(rows, PADDED)
        ),
        boxes_instance=merged.masked_fill(~valid[..., None], 0),
        semantic_classes=torch.tensor(semantic, dtype=torch.long),
        thing_classes=torch.tensor(things, dtype=torch.long),
        valid=valid,
        boxes=boxes,
        denoising=noisy,
    )


def leaves(output: SAMCPOutput) -> dict[str, torch.Tensor]:
    """Tensors that take part in gradients, by name."""
    found = {n: v for n, v in vars(output).items() if getattr(v, 'requires_grad', False)}
    if output.denoising is not None:
        found |= {
            f'denoising.{n}': v
            for n, v in vars(output.denoising).items()
            if getattr(v, 'requires_grad', False)
        }
    return found


def batch_of(
    seed: int,
    sizes: list[tuple[int, int]],
    classes: int = 5,
    things: list[int] = (1, 3, 4),
    denoising: int = 0,
    **options,
) -> tuple[SAMCPOutput, list[SegDataSample]]:
    """Output and samples of images with (units, patches) as given."""
    draw = torch.Generator().manual_seed(seed)
    samples = [random_sample(draw, k, n, classes, list(things)) for k, n in sizes]
    units = [k // 2 for k, _ in sizes]  # denoising queries are made of instances
    numbers = [n for _, n in sizes]
    output = random_output(
        draw, numbers, classes, list(things), denoising=denoising, units=units, **options
    )
    return output, samples


def box_of(mask: np.ndarray) -> list[float]:
    """xyxy with x2 and y2 behind the last pixel."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def brute_overlaps(units: np.ndarray, patches: np.ndarray) -> dict[str, torch.Tensor]:
    """The three overlaps of `gt_units`, (K, N) each, pair by pair from masks (., H, W)."""
    found = {
        name: torch.zeros(len(units), len(patches)) for name in ('mask_iop', 'box_iop', 'box_iou')
    }
    for k, unit in enumerate(units):
        for n, patch in enumerate(patches):
            a, b = box_of(unit), box_of(patch)
            sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1)]
            inner = sides[0] * sides[1]
            area_a, area_b = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
            found['mask_iop'][k, n] = (unit & patch).sum() / patch.sum()
            found['box_iop'][k, n] = inner / area_b
            found['box_iou'][k, n] = inner / (area_a + area_b - inner)
    return found


class Scene:
    """Stuff 0 and 1 above each other, and things of classes 2 and 3; patches are pieces of them.

    Attributes:
        label, identity: (H, W) class and number of the instance, 0 without.
        units, labels, is_instance: masks (K, H, W) of the units, instances first.
        parts: (N, H, W) masks of the patches.
        sample: with `gt_units`, `patches` and `patch_set`.
    """

    def __init__(self, seed: int = 0, size: tuple[int, int] = (24, 36)) -> None:
        rng = np.random.default_rng(seed)
        height, width = size
        self.label, self.identity = np.zeros((2, *size), dtype=int)
        self.label[height // 2 :] = 1
        for number, (top, left) in enumerate([(2, 3), (9, 20), (14, 6)], start=1):
            self.label[top : top + 8, left : left + 9] = 2 + number % 2
            self.identity[top : top + 8, left : left + 9] = number
        instances = [self.identity == i for i in (1, 2, 3)]
        self.units = np.stack(instances + [self.label == c for c in range(4)])
        self.labels = torch.tensor([int(self.label[m].max()) for m in instances] + [0, 1, 2, 3])
        self.is_instance = torch.arange(7) < 3
        piece, parts = self.label * 10 + self.identity, []
        for value in np.unique(piece):  # each is cut at a random column and a random row
            whole = piece == value
            column = np.arange(width) < np.nonzero(whole)[1].min() + rng.integers(2, 7)
            row = (np.arange(height) < np.nonzero(whole)[0].min() + rng.integers(2, 7))[:, None]
            cuts = [whole & column & row, whole & column & ~row, whole & ~column]
            parts += [cut for cut in cuts if cut.any()]
        self.refresh(np.stack([parts[i] for i in rng.permutation(len(parts))]))

    def refresh(self, parts: np.ndarray) -> None:
        """Take other patches."""
        size = self.label.shape
        self.parts, patches = parts, PatchSet.from_masks(parts)
        units = InstanceData(
            labels=self.labels,
            is_instance=self.is_instance,
            bboxes=torch.tensor(np.array([box_of(m) for m in self.units])).float(),
            **brute_overlaps(self.units, parts),
        )
        ids = torch.arange(len(patches))
        seen = InstanceData(bboxes=torch.from_numpy(patches.boxes), ids=ids)
        self.sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        self.sample.set_data(dict(patches=seen, gt_units=units))
        self.sample.set_field(patches, 'patch_set')

    def truth(self) -> dict:
        """What the evaluators read."""
        label, ids = self.label, self.label * 10 + self.identity
        values = np.unique(ids)
        segments = InstanceData(
            ids=torch.from_numpy(values),
            labels=torch.from_numpy(values // 10),
            is_thing=torch.from_numpy(values // 10 > 1),
            is_crowd=torch.zeros(len(values), dtype=torch.bool),
        )
        return dict(
            gt_sem_seg=PixelData(data=torch.from_numpy(label)[None]),
            gt_panoptic_seg=PixelData(data=torch.from_numpy(ids)[None]),
            gt_segments=segments,
        )
