"""Trainings of a tiny SAM-CP on a tiny data set with patches."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from toy_patches import CLASSES, THINGS, toy_patch_dataset, write_toy_patches
from toy_samcp import TEXT_DIM, toy_detector

FLIP = dict(type='DetRandomFlip', prob=0.5)
SIDES = dict(type='DetRandomChoiceResize', scales=[(96, 48), (128, 64)], keep_ratio=True)
CROP = dict(type='DetRandomCrop', crop_size=(90, 40))


def write_data(folder: Path, images: int = 5) -> None:
    """Images, labels, patches and text embeddings of the classes."""
    write_toy_patches(folder / 'data', images)
    rows = np.random.default_rng(3).standard_normal((len(CLASSES), TEXT_DIM))
    np.save(folder / 'text.npy', rows.astype(np.float32))


def make_config(
    folder: Path, out: Path, steps: int = 4, interval: int = 2, batch: int = 2
) -> Config:
    """Few steps with random resizing, flips and crops, denoising and a checkpoint every so often.

    Args:
        folder: of `write_data`.
        out: the work directory.
        steps: of training.
        interval: of checkpoints.
        batch: images of a step, of all processes.
    """
    head = dict(num_classes=len(CLASSES), thing_classes=THINGS)
    model = toy_detector(str(folder / 'text.npy'), head, classes=CLASSES)
    dataset = toy_patch_dataset(folder / 'data', FLIP, SIDES, CROP)
    config = dict(
        default_scope='mmprompt',
        model=model.to_dict(),
        train_dataloader=dict(
            batch_size=batch,
            num_workers=0,
            sampler=dict(type='ResumableSampler'),
            dataset=dataset.to_dict(),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps + 1),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
            clip_grad=dict(max_norm=0.1, norm_type=2),
            paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
        ),
        param_scheduler=[
            dict(type='MultiStepLR', milestones=[steps - 1], gamma=0.1, by_epoch=False)
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=interval),
        ),
        log_processor=dict(by_epoch=False),
        visualizer=dict(type='Visualizer', vis_backends=[]),
        randomness=dict(seed=3),
        work_dir=str(out),
    )
    return Config(config, format_python_code=False)
