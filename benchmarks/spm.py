"""What SPM costs beside full tuning and head tuning of the same network: time, memory, parameters.

MMSegmentation's ResNetV1c at output stride 8 with PSPHead and 150 classes, as the paper has it on
ADE20K, with random weights and images. Each arm runs in a process of its own, in turns with the
others; a ratio is the median over rounds.

    python benchmarks/spm.py [--backbone r50] [--device cuda] [--out PATH]
    python benchmarks/spm.py --threads 1 --clock processor --repeats 3   # on a busy machine

`forward` is a prediction's logits in eval mode; head tuning and full tuning are the bare backbone
and head there, so `head` stands for both. `step` is a training step with SGD and momentum, on at
least two images, since PSPHead normalises a map of one pixel. Memory is what is held between calls
(weights, buffers, momentum) and the peak of a call beyond it.
"""

import argparse
import math
import statistics

import torch
from comparison import (  # beside this file
    batch_of,
    common_parser,
    conditions,
    in_turns,
    parse,
    ratios,
    report,
)
from measure import MB  # beside this file
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import mmprompt  # noqa: F401, registers the models
from mmprompt.registry import MODELS

ARMS = ('spm', 'head', 'full')
DEPTHS = dict(r18=18, r50=50, r101=101)
CLASSES = 150
HEADER = (
    'part', 'arm', 'images', 'trained: backbone (M)', 'prompt (M)', 'head (M)', 'seconds',
    'held (MB)', 'peak (MB)', 'time / full', 'memory / full', 'time / head', 'memory / head',
)  # fmt: skip


def build_model(arm: str, options: argparse.Namespace) -> torch.nn.Module:
    """The segmentor of one arm with random weights."""
    deep = DEPTHS[options.backbone] > 34
    norm = dict(type='BN')
    backbone = dict(
        type='mmseg.ResNetV1c',
        depth=DEPTHS[options.backbone],
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_cfg=norm,
    )
    model = MODELS.build(
        dict(
            type='SPMSegmentor',
            data_preprocessor=dict(
                type='mmseg.SegDataPreProcessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
                size=tuple(options.size),
            ),
            backbone=dict(
                type='SPMBackbone',
                backbone=backbone,
                prompt_at=['layer1', 'layer2', 'layer3', 'layer4', 'out'],
                num_classes=CLASSES,
                tuning=arm,
            ),
            decode_head=dict(
                type='mmseg.PSPHead',
                in_channels=2048 if deep else 512,
                in_index=3,
                channels=512 if deep else 128,
                num_classes=CLASSES,
                norm_cfg=norm,
                align_corners=False,
                loss_decode=dict(type='mmseg.CrossEntropyLoss'),
            ),
            classes=[f'class {i}' for i in range(CLASSES)],
            test_cfg=dict(mode='whole'),
        )
    )
    model.load_state_dict(model.state_dict())  # so that no pretrained weights are asked for
    return model


@torch.inference_mode(False)
def build(arm: str, part: str, options: argparse.Namespace):
    """({'groups': parameters, 'held': MB}, {'forward', 'step'}) of one arm for one part."""
    init_default_scope('mmprompt')
    model = build_model(arm, options).to(options.device)
    groups = model.parameter_groups()
    # A rate that changes nothing to speak of: random weights must not run away.
    sgd = dict(type='SGD', lr=1e-6, momentum=0.9, weight_decay=5e-4)
    optim = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=sgd))
    images = torch.randn(options.batch, 3, *options.size, device=options.device)
    data = batch_of(options.step_batch, options.size, CLASSES)
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))

    def forward():
        model.eval()
        return model(images, mode='tensor')

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step():
        losses = model.train().train_step(data, optim)
        if not math.isfinite(float(losses['loss'])):
            raise RuntimeError(f'{arm}: the loss is {float(losses["loss"])}')

    if part == 'step':
        held += 4 * sum(groups.values())  # momentum
    return dict(groups=groups, held=held / MB), dict(forward=forward, step=step)


def rows_of(part: str, options: argparse.Namespace) -> list[tuple]:
    """A row per arm of one part."""
    arms = {arm: (arm, part, options) for arm in options.arms if part == 'step' or arm != 'full'}
    found = in_turns(build, arms, part, options)
    images = options.batch if part == 'forward' else options.step_batch
    rows = []
    for arm, mine in found.items():
        rows.append((
            part, arm, str(images), *(f'{count / 1e6:.2f}' for count in mine['groups'].values()),
            f'{statistics.median(mine["seconds"]):.2f}', f'{mine["held"]:.0f}',
            f'{mine["peak"]:.0f}', *ratios(mine, found.get('full')),
            *ratios(mine, found.get('head')),
        ))  # fmt: skip
    return rows


def main() -> None:
    parser = common_parser(__doc__, (512, 512))
    add = parser.add_argument
    add('--backbone', choices=DEPTHS, default='r101')
    add('--parts', nargs='+', choices=('forward', 'step'), default=['forward', 'step'],
        metavar='PART', help='forward, step; default both')  # fmt: skip
    add('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM',
        help=f'some of {", ".join(ARMS)}; default all')  # fmt: skip
    add('--batch', type=int, default=1, help='images of a prediction (1)')
    add('--step-batch', type=int, default=2, help='images of a training step, at least 2 (2)')
    options = parse(parser)
    if options.step_batch < 2:
        parser.error('--step-batch must be at least 2')
    height, width = options.size
    subject = f'ResNetV1c-{DEPTHS[options.backbone]}, PSPHead, {CLASSES} classes, {height}x{width}'
    report(conditions(subject, options), HEADER, options.parts, rows_of, options)


if __name__ == '__main__':
    main()
