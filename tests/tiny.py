"""The smallest model with everything that a prompt method has, and data for it."""

import functools
from pathlib import Path

import mmengine.runner.runner as runner_module
import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from PIL import Image
from torch import nn

from mmprompt.common.checkpoint import fingerprint, load_tensors, save_tensors
from mmprompt.common.freeze import freeze
from mmprompt.common.prompt_file import PROMPT_FILE, PromptFile
from mmprompt.registry import MODELS

# Every Runner asks compilers and drivers for their versions, which takes seconds.
runner_module.collect_env = functools.cache(runner_module.collect_env)
CLASSES = ('ground', 'wall', 'sky')


@MODELS.register_module()
class TinySegmentor(BaseModel):
    """A frozen convolution with batch norm under a learned prompt, with dropout between."""

    def __init__(self, base=None, classes=CLASSES, spoil_at=None):
        super().__init__(
            SegDataPreProcessor(
                mean=[127.5] * 3, std=[64.0] * 3, size_divisor=1, test_cfg={'size_divisor': 1}
            )
        )
        self.base = base
        self.classes = tuple(classes)
        self.backbone = freeze(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)))
        self.prompt = nn.Parameter(torch.zeros(len(classes), 8))
        self.dropout = nn.Dropout(0.5)
        self.spoil_at = spoil_at
        self.steps = 0
        self.base_fingerprint = None

    def load_base(self):
        if self.base_fingerprint is None:
            if self.base is not None:
                self.backbone.load_state_dict(load_tensors(self.base)[0])
            self.base_fingerprint = fingerprint(self.backbone.state_dict())

    def export_files(self):
        tensors = {'prompt': self.prompt.detach()}
        return {PROMPT_FILE: PromptFile(tensors, 'Tiny', self.classes, self.base_fingerprint)}

    def load_prompt(self, prompt):
        prompt.check(
            base_fingerprint=self.base_fingerprint,
            classes=self.classes,
            shapes={'prompt': self.prompt.shape},
            method='Tiny',
        )
        self.prompt.data.copy_(prompt.tensors['prompt'])

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(list(inputs)) if isinstance(inputs, (list, tuple)) else inputs
        logits = torch.einsum('bdhw,cd->bchw', self.dropout(self.backbone(inputs)), self.prompt)
        if mode == 'loss':
            self.steps += 1
            labels = torch.stack([s.gt_sem_seg.data[0] for s in data_samples]).long()
            loss = nn.functional.cross_entropy(logits, labels, ignore_index=255)
            return {'loss_seg': loss * float('nan') if self.steps == self.spoil_at else loss}
        if mode == 'predict':
            for sample, label in zip(data_samples, logits.argmax(1, keepdim=True)):
                sample.set_data({'pred_sem_seg': PixelData(data=label)})
            return data_samples
        return logits


def make_data(root: Path, num: int = 6, size: tuple[int, int] = (16, 24)) -> Path:
    """Write ``num`` images and labels each for train and val; class 2 is in two of them only."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(num):
            label = (np.arange(size[0])[:, None] > rng.integers(4, 12)) * np.ones(size, np.uint8)
            label[:2, : i + 4] = 2 if i < 2 else 255
            image = np.clip(label[..., None] * 60 + rng.integers(0, 60, (*size, 3)), 0, 255)
            for kind, array in (('img', image), ('ann', label)):
                path = root / kind / split / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return root


def make_base(path: Path, seed: int = 0) -> Path:
    """Write a frozen base for the tiny model."""
    torch.manual_seed(seed)
    return save_tensors(path, TinySegmentor().backbone.state_dict(), {'kind': 'tiny'})


CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmprompt'], allow_failed_imports=False)
model = dict(type='mmprompt.TinySegmentor', base={base!r})
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
dataset = dict(
    type='BaseSegDataset', data_root={data!r}, img_suffix='.png',
    metainfo=dict(classes={classes!r}),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='mmprompt.ResumableSampler'),
    dataset=dict(
        data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
        pipeline=[*load, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')], **dataset,
    ),
)
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='img/val', seg_map_path='ann/val'),
        pipeline=[*load, dict(type='PackSegInputs')], **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = test_cfg = dict()
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=4)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.5, momentum=0.9))
param_scheduler = [dict(type='PolyLR', power=0.9, end=6, by_epoch=False)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
"""


def make_config(folder: Path, extra: str = '', **paths: str) -> Path:
    """Write data, base and a config for them into ``folder``; return the config's path."""
    data = make_data(folder / 'data')
    base = make_base(folder / 'base.safetensors')
    path = folder / 'tiny.py'
    text = CONFIG.format(base=str(base), data=str(data), classes=CLASSES)
    path.write_text(text + extra)
    return path
