"""A tiny SAM-CP and images of coloured rectangles that were cut into patches."""

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.common.patches import PatchSet
from mmprompt.methods.samcp.features import ImageFeatures

CLASSES = ('road', 'sky', 'car', 'person')
THINGS = (2, 3)
TEXT_DIM = 12
DIM = 16
CHANNELS = 8
STRIDES = (4, 8, 16, 32)
SIZE = (48, 64)


def toy_head(**head) -> dict:
    """Config of a `SAMCPHead` with some ten thousand parameters; `head` overrides its keys."""
    config = dict(
        type='SAMCPHead',
        num_classes=len(CLASSES),
        thing_classes=THINGS,
        text_dim=TEXT_DIM,
        in_channels=CHANNELS,
        dim=DIM,
        patch_encoder=dict(hidden=24, num_layers=2, num_heads=2, ffn_dim=24),
        decoder=dict(num_layers=3, num_heads=8, ffn_dim=24),
        denoising=dict(num_queries=6),
    )
    for key, value in head.items():
        merge = isinstance(value, dict) and isinstance(config.get(key), dict)
        config[key] = {**config[key], **value} if merge else value
    return config


def stir_affinity(head: torch.nn.Module) -> None:
    """Affinities that differ, as after some training; equal ones leave the matching to rounding."""
    for layer in head.decoder.layers:
        torch.nn.init.normal_(layer.affinity.mlp[-1].weight, std=3)
        torch.nn.init.normal_(layer.affinity.patch_bias)


def write_text(path) -> str:
    """A file of class embeddings."""
    rows = torch.randn(len(CLASSES), TEXT_DIM, generator=torch.Generator().manual_seed(3))
    np.save(path, rows.numpy())
    return str(path)


def toy_detector(text: str, head: dict | None = None, **model) -> ConfigDict:
    """Model config of a `SAMCPDetector`; `model` overrides its keys."""
    config = dict(
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
            depth=18,
            stem_channels=4,
            base_channels=4,
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
        ),
        neck=dict(
            type='mmseg.FPN',
            in_channels=[4, 8, 16, 32],
            out_channels=CHANNELS,
            norm_cfg=dict(type='GN', num_groups=2),
            num_outs=4,
        ),
        head=toy_head(text=text, **(head or {})),
        classes=CLASSES,
    )
    return ConfigDict({**config, **model})


def toy_masks(patches: int, size=SIZE, seed: int = 0) -> np.ndarray:
    """(N, H, W): the whole picture, and random rectangles with a corner cut off."""
    random = np.random.default_rng(seed)
    masks = np.zeros((patches, *size), bool)
    for mask in masks:
        y, x = (int(random.integers(side - 8)) for side in size)
        height, width = (int(random.integers(6, side)) for side in size)
        mask[y : y + height, x : x + width] = True
        mask[y : y + 2, x : x + 2] = False
    masks[:1] = True
    return masks


def toy_units(masks: np.ndarray, patches: PatchSet, labels, is_instance) -> InstanceData:
    """`gt_units` of masks (K, H, W), computed pixel by pixel and pair by pair."""
    units, decoded = PatchSet.from_masks(masks), patches.decode()
    shape = len(masks), len(patches)
    tables = {name: np.zeros(shape, np.float32) for name in ('mask_iop', 'box_iop', 'box_iou')}
    for k, n in np.ndindex(shape):
        a, b = units.boxes[k], patches.boxes[n]
        inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
        own, area = (a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()
        tables['mask_iop'][k, n] = (masks[k] & decoded[n]).sum() / decoded[n].sum()
        tables['box_iop'][k, n] = inner / area
        tables['box_iou'][k, n] = inner / (own + area - inner)
    return InstanceData(
        labels=torch.tensor(labels, dtype=torch.long),
        is_instance=torch.tensor(is_instance, dtype=torch.bool),
        bboxes=torch.from_numpy(units.boxes),
        **{name: torch.from_numpy(table) for name, table in tables.items()},
    )


def toy_sample(patches: int = 7, size=SIZE, seed: int = 0, units: bool = True) -> SegDataSample:
    """A sample with a road, a sky and two cars; without any true unit if `units` is False."""
    height, width = size
    proposals = PatchSet.from_masks(toy_masks(patches, size, seed))
    truth = np.zeros((5, height, width), bool)
    truth[0, height // 2 :] = True
    truth[1, : height // 2] = True
    truth[3, height // 3 :, : width // 2] = True
    truth[4, height // 3 :, width // 2 + 2 :] = True
    truth[2] = truth[3] | truth[4]
    labels, is_instance = [0, 1, 2, 2, 2], [False, False, False, True, True]
    shown = slice(None) if units else slice(0)
    shape = dict(img_shape=size, ori_shape=size, pad_shape=size, img_path=f'toy_{seed}.png')
    sample = SegDataSample(metainfo=shape)
    sample.patches = InstanceData(
        bboxes=torch.from_numpy(proposals.boxes),
        regions=torch.from_numpy(proposals.regions),
        scores=torch.from_numpy(proposals.scores),
        ids=torch.arange(len(proposals)),
    )
    sample.gt_units = toy_units(truth[shown], proposals, labels[shown], is_instance[shown])
    sample.patch_set = proposals
    label = np.where(truth[2], 2, np.where(truth[0], 0, 1))
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(label)[None])
    return sample


def toy_samcp_batch(patches=(7, 4), size=SIZE) -> dict:
    """What a data loader gives: images 0 to 255 and samples, with that many patches each."""
    samples = [toy_sample(count, size, seed) for seed, count in enumerate(patches)]
    generator = torch.Generator().manual_seed(7)
    inputs = []
    for sample in samples:
        noise = torch.randint(9, (3, *size), generator=generator)
        inputs.append((sample.gt_sem_seg.data * 60 + noise).to(torch.uint8))
    return dict(inputs=inputs, data_samples=samples)


def toy_levels(canvas=(64, 64), images: int = 1, seed: int = 0, dtype=torch.float32) -> list:
    """A random pyramid (G, CHANNELS, h, w) of images of that padded size."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            images, CHANNELS, canvas[0] // s, canvas[1] // s, generator=generator, dtype=dtype
        )
        for s in STRIDES
    ]


def toy_features(size=SIZE, canvas=(64, 64), seed: int = 0, dtype=torch.float32) -> ImageFeatures:
    """Features of one image."""
    levels = toy_levels(canvas, 1, seed, dtype)
    return ImageFeatures([(levels, [0], canvas)], torch.tensor([size], dtype=dtype))
