"""A picture with patches and true units, and a SAM-CP, both made of random numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from patch_loading import superpixels  # beside this file

import mmprompt  # noqa: F401, registers the models
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet, box_iop
from mmprompt.datasets.det_transforms import DetResize
from mmprompt.datasets.patches import LoadPatches, LoadUnits, PackPatchInputs
from mmprompt.datasets.transforms import ID_DIVISOR
from mmprompt.registry import MODELS

UNITS = 24
#: Height and width of the stored picture by those of the input; COCO's are about this small.
STORED = 0.6
TEXT_DIM = 512
CERTAIN = 8.0  # logit
THING_SHARE = 0.6  # of the classes; 80 of COCO's 133


def things_of(classes: int) -> tuple[int, ...]:
    """The thing classes among so many."""
    return tuple(range(round(classes * THING_SHARE)))


def patches_of(random: np.random.Generator, units: np.ndarray, count: int) -> PatchSet:
    """N patches of units (H, W): the units, pieces of them, and cells that keep to no border."""
    fine = superpixels(random, units.shape, max(count, 2))
    pieces = np.unique(units.astype(np.int64) * (fine.max() + 1) + fine, return_inverse=True)[1]
    pieces = pieces.reshape(units.shape)
    cells = superpixels(random, units.shape, max(count // 2, 2))
    names = [(units, name) for name in range(units.max() + 1)][: count // 4]
    by_size = np.argsort(-np.bincount(pieces.ravel()), kind='stable')
    names += [(pieces, name) for name in by_size[: count * 2 // 3 - len(names)]]
    names += [(cells, name) for name in random.permutation(cells.max() + 1)]
    names += [(pieces, name) for name in by_size[count * 2 // 3 :]]
    found = []
    for begin in range(0, count, 50):  # few decoded masks at a time
        part = names[begin : min(begin + 50, count)]
        found.append(PatchSet.from_masks(np.stack([where == name for where, name in part])))
    return PatchSet.concat(found)


def loading(
    folder: Path, number: int, patches: int, classes: int, size: tuple[int, int]
) -> list[Callable[[], dict]]:
    """Calls that load a picture each: patches, units, resizing to `size`, packing.

    Args:
        folder: where the store of the patches is written.
        number: of pictures.
        patches: N.
        classes: C.
        size: height and width of the input.
    """
    stored = tuple(round(side * STORED) for side in size)
    things, store = things_of(classes), folder / 'bench.patches'
    pictures = []
    with PatchStoreWriter(store, dict(generator='benchmark', settings={})) as writer:
        for index in range(number):
            random = np.random.default_rng(index)
            units = superpixels(random, stored, UNITS)
            labels = random.integers(classes, size=units.max() + 1)
            numbers = np.where(np.isin(labels, things), np.arange(len(labels)) + 1, 0)
            panoptic = ((labels + 1) * ID_DIVISOR + numbers)[units].astype(np.int32)
            writer.add(f'{index}.png', patches_of(random, units, patches))
            image = random.integers(256, size=(*stored, 3), dtype=np.uint8)
            pictures.append((image, panoptic))
        writer.finish()
    steps = [
        LoadPatches(store),
        LoadUnits(things, keep_truth=False),
        DetResize(scale=size[::-1], keep_ratio=False),
        PackPatchInputs(thing_classes=things),
    ]

    def load(index: int) -> dict:
        image, panoptic = pictures[index]
        results: dict[str, Any] = dict(img=image, img_path=f'{index}.png', img_shape=stored)
        results |= dict(ori_shape=stored, gt_panoptic_map=panoptic, seg_fields=['gt_panoptic_map'])
        for step in steps:
            results = step(results)
        return results

    return [lambda index=index: load(index) for index in range(number)]


def build_model(classes: int, frozen: bool) -> torch.nn.Module:
    """ResNet-50, FPN and SAM-CP as published, with random weights that decide something."""
    things = things_of(classes)
    model = MODELS.build(
        dict(
            type='SAMCPDetector',
            data_preprocessor=dict(
                type='mmseg.SegDataPreProcessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
                size_divisor=32,
                test_cfg=dict(size_divisor=32),
            ),
            backbone=dict(
                type='mmseg.ResNet',
                depth=50,
                norm_cfg=dict(type='BN', requires_grad=False),
                norm_eval=True,
            ),
            neck=dict(
                type='mmseg.FPN',
                in_channels=[256, 512, 1024, 2048],
                out_channels=256,
                norm_cfg=dict(type='GN', num_groups=32),
                num_outs=4,
            ),
            head=dict(thing_classes=things, text_dim=TEXT_DIM),
            classes=[f'class {i}' for i in range(classes)],
            frozen_backbone=frozen,
        )
    )
    model.head.set_text(torch.randn(classes, TEXT_DIM))
    model.load_base = lambda: None  # nothing is read
    decide(model.head.decoder)
    return model


def decide(decoder: torch.nn.Module) -> None:
    """Let every query take in the patches that lie in the box it starts with.

    At the start of a training all affinities are equal and all merged boxes are the same, which
    are read from the image once. A trained model's are not.
    """
    inside: list[torch.Tensor] = []

    def look(module, inputs) -> None:
        queries, patches = inputs[:2]
        pairs = zip(patches.boxes, queries.boxes)
        inside[:] = [torch.stack([box_iop(*pair) for pair in pairs])]  # (B, M, N)

    decoder.register_forward_pre_hook(look)
    # The other layers add to what the first says.
    decoder.layers[0].affinity.register_forward_hook(
        lambda module, inputs, logits: logits + CERTAIN * (inside[0] > 0.8)
    )
