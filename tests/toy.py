"""Tiny everything: a SEEM base, street-like images and configs, made in milliseconds."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.datasets import CityscapesDataset
from mmseg.structures import SegDataSample
from PIL import Image

from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import save_base
from mmprompt.foundation.seem.templates import BARE_TEMPLATES
from mmprompt.foundation.seem.tokenizer import collect_token_ids

CLASSES = CityscapesDataset.METAINFO['classes']
QUERIES = 10
PROMPTS = QUERIES - 1  # a square number, for the grid of points
DIM = 16
HEIGHT, WIDTH = 32, 64


def toy_seem(classes=CLASSES, in_channels=(8, 16, 32, 64), **decoder) -> dict:
    """Constructor dicts of a SEEM with some ten thousand parameters."""
    return dict(
        backbone=dict(
            type='mmprompt.FocalNet',
            embed_dim=8,
            depths=(1, 1, 1, 1),
            focal_levels=(1, 1, 1, 1),
            focal_windows=(3, 3, 3, 3),
            mlp_ratio=1.0,
            drop_path_rate=0.1,
            block='dw',
            layer_scale=0.5,
        ),
        pixel_decoder=dict(
            type='mmprompt.TransformerFPN',
            in_channels=in_channels,
            dim=DIM,
            mask_dim=DIM,
            num_layers=1,
            num_heads=2,
            ffn_dim=16,
            num_groups=4,
        ),
        decoder=dict(
            type='mmprompt.SEEMDecoder',
            dim=DIM,
            num_layers=3,
            num_heads=2,
            ffn_dim=16,
            num_queries=QUERIES,
            mask_dim=DIM,
            proj_dim=DIM,
            num_memory=2,
            **decoder,
        ),
        text_encoder=dict(
            type='mmprompt.SEEMTextEncoder',
            width=16,
            num_layers=1,
            num_heads=2,
            context_length=12,
            dim=DIM,
            token_ids=collect_token_ids(classes, BARE_TEMPLATES),
        ),
    )


def write_base(path: Path, seem: dict | None = None, seed: int = 0) -> Path:
    """Write a base file with random weights; equal seeds give equal files."""
    seem = seem or toy_seem()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return save_base(path, SEEM(**seem), seem, dict(seed=seed))


def toy_segmentor(base: Path | str, seem: dict | None = None, **model) -> ConfigDict:
    """Model config of an `SSPromptSegmentor` over `write_base`; `model` overrides its keys."""
    seem = seem or toy_seem()
    head = dict(
        type='SEEMPromptHead',
        pixel_decoder=seem['pixel_decoder'],
        decoder=seem['decoder'],
        spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS),
        semantic_prompt=dict(type='SemPrompt'),
    )
    config = dict(
        type='SSPromptSegmentor',
        backbone=seem['backbone'],
        decode_head={**head, **model.pop('decode_head', {})},
        classes=CLASSES,
        base=str(base),
        templates=BARE_TEMPLATES,
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            size_divisor=32,
            test_cfg=dict(size_divisor=32),
        ),
    )
    return ConfigDict({**config, **model})


def toy_batch(batch: int = 2, size=(HEIGHT, WIDTH), classes: int = len(CLASSES)) -> dict:
    """What a data loader gives: BGR images 0 to 255 and samples with labels, some ignored."""
    generator = torch.Generator().manual_seed(7)
    inputs, samples = [], []
    for _ in range(batch):
        cells = torch.randint(classes, (1, size[0] // 8, size[1] // 8), generator=generator)
        label = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
        image = (label * 13).expand(3, -1, -1) + torch.randint(9, (3, *size), generator=generator)
        label[:, :2] = 255
        shape = dict(img_shape=size, ori_shape=size, pad_shape=size)
        sample = SegDataSample(metainfo=dict(shape, seg_map_path='toy_labelTrainIds.png'))
        sample.gt_sem_seg = PixelData(data=label)
        inputs.append(image.to(torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def write_streets(root: Path, train: int = 4, val: int = 2, size=(HEIGHT, WIDTH)) -> Path:
    """Write images and labels in the folders of Cityscapes; every class is in every image."""
    random = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for index in range(count):
            cells = random.permutation(np.arange(size[0] // 4 * (size[1] // 8))) % len(CLASSES)
            grid = cells.reshape(size[0] // 4, size[1] // 8).astype(np.uint8)
            label = grid.repeat(4, 0).repeat(8, 1)
            image = np.stack([label * 13, 255 - label * 13, label * 5], -1)
            noise = random.integers(-9, 10, image.shape)
            image = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
            instances = np.where(label >= 11, label.astype(np.int32) * 1000, label)
            files = dict(
                leftImg8bit=('leftImg8bit', Image.fromarray(image)),
                gtFine_labelTrainIds=('gtFine', Image.fromarray(label)),
                gtFine_instanceIds=('gtFine', Image.fromarray(instances.astype(np.int32))),
            )
            for suffix, (folder, picture) in files.items():
                path = root / folder / split / 'toy' / f'toy_{index:06d}_000000_{suffix}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    return root
