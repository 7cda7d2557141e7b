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
import csv
import io
import math
import statistics
import sys
from pathlib import Path

import torch
from measure import MB, Worker  # beside this file
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from seem import markdown_row, processor  # beside this file
from ssprompt_efficiency import batch_of  # beside this file

import mmprompt  # noqa: F401, registers the models
from mmprompt.common.files import atomic_file
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
    model.backbone._base_loaded = True  # random weights will do
    return model


@torch.inference_mode(False)
def build(arm: str, options: argparse.Namespace):
    """(parameters by group and MB held, {'forward', 'step'}) of one arm."""
    init_default_scope('mmprompt')
    model = build_model(arm, options).to(options.device)
    groups = model.parameter_groups()
    # A rate that changes nothing to speak of: random weights must not run away.
    sgd = dict(type='SGD', lr=1e-6, momentum=0.9, weight_decay=5e-4)
    optim = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=sgd))
    images = torch.randn(options.batch, 3, *options.size, device=options.device)
    data = batch_of(argparse.Namespace(size=options.size, batch=options.step_batch), CLASSES)
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))

    def forward():
        model.eval()
        return model(images, mode='tensor')

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step():
        losses = model.train().train_step(data, optim)
        if not math.isfinite(float(losses['loss'])):
            raise RuntimeError(f'{arm}: the loss is {float(losses["loss"])}')

    held = dict(forward=weights / MB, step=(weights + 4 * sum(groups.values())) / MB)
    return dict(groups=groups, held=held), dict(forward=forward, step=step)


def measured(part: str, options: argparse.Namespace) -> dict[str, dict]:
    """Figures of every arm, in turns: `seconds` of each round, `peak`, `held`, `groups`."""
    workers: dict[str, Worker] = {}
    try:
        for arm in options.arms:
            if part == 'step' or arm != 'full':
                arguments = (arm, options)
                workers[arm] = Worker(build, arguments, options.device, options.threads)
                workers[arm].run(part)  # makes the momentum, chooses algorithms
        found = {arm: dict(worker.parameters, seconds=[]) for arm, worker in workers.items()}
        for arm, worker in workers.items():
            found[arm]['peak'] = worker.run(part, 'peak')
        for turn in range(options.repeats):
            order = list(workers.items())
            for arm, worker in order if turn % 2 else reversed(order):
                found[arm]['seconds'].append(worker.run(part, options.clock))
    finally:
        for worker in workers.values():
            worker.__exit__()
    return found


def ratios(mine: dict, other: dict | None, part: str) -> tuple[str, str]:
    """Time (median over rounds) and memory of one arm by another's."""
    if other is None:
        return '', ''
    time = statistics.median(a / b for a, b in zip(mine['seconds'], other['seconds']))
    totals = [arm['held'][part] + arm['peak'] for arm in (mine, other)]
    return f'{time:.2f}', f'{totals[0] / totals[1]:.2f}'


def rows_of(part: str, options: argparse.Namespace) -> list[tuple]:
    """A row per arm of one part."""
    found = measured(part, options)
    images = options.batch if part == 'forward' else options.step_batch
    rows = []
    for arm, mine in found.items():
        rows.append((
            part, arm, str(images), *(f'{count / 1e6:.2f}' for count in mine['groups'].values()),
            f'{statistics.median(mine["seconds"]):.2f}', f'{mine["held"][part]:.0f}',
            f'{mine["peak"]:.0f}', *ratios(mine, found.get('full'), part),
            *ratios(mine, found.get('head'), part),
        ))  # fmt: skip
    return rows


def conditions(options: argparse.Namespace) -> str:
    """One line that says under which conditions was measured."""
    height, width = options.size
    threads = options.threads or torch.get_num_threads()
    facts = [
        f'ResNetV1c-{DEPTHS[options.backbone]}, PSPHead, {CLASSES} classes, {height}x{width}',
        processor(options.device),
        *([f'{threads} threads'] if options.device == 'cpu' else []),
        f'torch {torch.__version__}',
        f'median of {options.repeats}',
        *(['processor time'] if options.clock == 'processor' else []),
    ]
    return ', '.join(facts)


def table(rows: list[tuple]) -> str:
    return '\n'.join([markdown_row(HEADER), '|' + '---|' * len(HEADER), *map(markdown_row, rows)])


def write(path: Path, rows: list[tuple], line: str) -> None:
    """PATH.md and PATH.csv."""
    with atomic_file(path.with_suffix('.md')) as stream:
        stream.write(f'{line}\n\n{table(rows)}\n'.encode())
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([HEADER, *rows])
    with atomic_file(path.with_suffix('.csv')) as stream:
        stream.write(text.getvalue().encode())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--backbone', choices=DEPTHS, default='r101')
    add('--parts', nargs='+', choices=('forward', 'step'), default=['forward', 'step'],
        metavar='PART', help='forward, step; default both')  # fmt: skip
    add('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM',
        help=f'some of {", ".join(ARMS)}; default all')  # fmt: skip
    add('--device', choices=('cpu', 'cuda'), default='cpu')
    add('--threads', type=int, help="of the CPU; default PyTorch's own choice")
    add('--clock', choices=('seconds', 'processor'), default='seconds',
        help='processor: what the process computes itself; for busy machines')  # fmt: skip
    add('--repeats', type=int, default=5)
    add('--size', nargs=2, type=int, default=[512, 512], metavar=('H', 'W'))
    add('--batch', type=int, default=1, help='images of a prediction (1)')
    add('--step-batch', type=int, default=2, help='images of a training step, at least 2 (2)')
    add('--out', type=Path, metavar='PATH', help='write PATH.md and PATH.csv')
    options = parser.parse_args()
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no CUDA device here')
    if options.device == 'cuda' and options.clock == 'processor':
        parser.error('--clock processor: a GPU computes outside of the process')
    if min(options.repeats, options.batch, options.step_batch - 1, *options.size) < 1:
        parser.error('--repeats, --batch and --size must be at least 1, --step-batch at least 2')
    return options


def main() -> int:
    options = parse()
    line = conditions(options)
    print(line, flush=True)
    rows = []
    for part in options.parts:
        found = rows_of(part, options)
        print('', table(found), sep='\n', flush=True)
        rows += found
        if options.out:
            write(options.out, rows, line)  # after each, so that nothing is lost
    return 0


if __name__ == '__main__':
    sys.exit(main())
