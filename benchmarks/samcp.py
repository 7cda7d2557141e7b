"""What SAM-CP costs: a prediction part by part, a training step, and beside the making of patches.

ResNet-50, FPN and SAM-CP as published, random weights and pictures, patches and units cut out of
each other. Every number of patches runs in a process of its own, in turns with the others.

    python benchmarks/samcp.py [--patches 100 300 800] [--device cuda] [--out PATH]
    python benchmarks/samcp.py --threads 1 --clock processor --repeats 2   # on a busy machine
    python benchmarks/samcp.py --parts predict --patches 300 --classes 20 133 250
    python benchmarks/samcp.py --parts split --config samcp/samcp_nano_streets     # Table 11

`predict` is one image: loading (patches, units, resizing; not the file of the image), backbone and
neck, patch encoder, decoder with classifier, merging into all three results (of answers that are
right, since random ones merge nothing), and beside them Section 3.1 to the letter (`pairwise`: one
prompt for each class and patch and each pair of patches, answered by one cosine similarity of given
features each). `step` is a training step with AdamW; *counted* is what it must keep by
`samcp_memory`, *peak* what it needs beyond weights and momentum. `split` is not of random pictures:
the test images of a config, by the model of this config, and the making of their patches; with
--out its rows are added to PATH_split.csv, which Table 11 of tools/reproduce.py reads.
"""

import argparse
import math
import statistics
import tempfile
from itertools import product
from pathlib import Path
from unittest.mock import patch

import samcp_split
import torch
from comparison import common_parser, conditions, parse, report  # beside this file
from measure import MB, Worker
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from samcp_memory import Step, activations
from samcp_scene import build_model, loading, things_of

from mmprompt.methods.samcp.head import batch_of
from mmprompt.methods.samcp.pairwise import (
    compose,
    feature_prompts,
    merge_masks,
    perfect_scores,
)

PREDICT = ('loading', 'backbone', 'encoder', 'decoder', 'merging', 'pairwise')
OURS = PREDICT[1:-1]
HEADERS = dict(
    predict=(
        'patches', 'classes', *(f'{name} (s)' for name in PREDICT[:-1]), 'without loading (s)',
        'peak: decoder (MB)', 'merging (MB)', 'prompts of 3.1', 'pairwise (s)',
        'pairwise / encoder to merging',
    ),
    step=(
        'patches', 'classes', 'backbone', 'images', 'queries', 'boxes', 'seconds', 'held (MB)',
        'peak (MB)', 'counted (MB)', 'of it: backbone and neck', 'decoder', 'peak / counted',
    ),
)  # fmt: skip


def truth_of(sample, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, D) of patches and texts (C, D): a patch has the text of the unit it lies in."""
    units = sample.gt_units
    text = torch.randn(classes, 256)
    return text[units.labels[units.mask_iop.argmax(dim=0)]], text


def build_predict(patches: int, classes: int, options: argparse.Namespace):
    """({'asked': prompts}, calls of `PREDICT`) for one image."""
    init_default_scope('mmprompt')
    folder = tempfile.TemporaryDirectory(prefix='samcp-')
    load = loading(Path(folder.name), 1, patches, classes, tuple(options.size))[0]
    model = build_model(classes, frozen=False).to(options.device).eval()
    packed = load()
    data = model.data_preprocessor({key: [value] for key, value in packed.items()}, False)
    inputs, samples = data['inputs'], data['data_samples']
    head, sample = model.head, samples[0]
    features = model.extract_feat(inputs, [sample.metainfo])
    batch = batch_of(samples, features)
    encoded = head.patch_encoder(features, batch)
    scores = perfect_scores(sample.gt_units, head.thing_classes, head.semantic_classes)
    known = [x.to(options.device) for x in truth_of(packed['data_samples'], classes)]
    things = things_of(classes)

    def decoder():
        with patch.object(head.patch_encoder, 'forward', return_value=encoded):
            return head(features, batch)

    def pairwise() -> int:
        kept = folder  # until the process ends
        seen = len(sample.patches)  # none is left out but for a lack of pixels
        found = compose(seen, range(classes), things, *feature_prompts(*known))
        masks = torch.from_numpy(sample.patch_set.decode())
        for members in (*found.semantic.values(), *(each for _, each in found.instances)):
            merge_masks(masks, members)
        return sum(found.asked) if kept else 0

    calls = dict(
        loading=load,
        backbone=lambda: model.extract_feat(inputs, [sample.metainfo]),
        encoder=lambda: head.patch_encoder(features, batch),
        decoder=decoder,
        merging=lambda: model.predictor.add(sample, scores),
        pairwise=pairwise,
    )
    return dict(asked=pairwise()), calls


@torch.inference_mode(False)
def build_step(patches: int, classes: int, frozen: bool, options: argparse.Namespace):
    """({'held': MB, 'boxes': U, ...}, {'step': call}) of one kind of training."""
    init_default_scope('mmprompt')
    with tempfile.TemporaryDirectory(prefix='samcp-') as folder:
        size = tuple(options.size)
        packed = [load() for load in loading(Path(folder), options.batch, patches, classes, size)]
    data = {key: [sample[key] for sample in packed] for key in packed[0]}
    model = build_model(classes, frozen).to(options.device).train()
    # A rate that changes nothing to speak of: random weights must not run away.
    adam = dict(type='AdamW', lr=1e-9, weight_decay=1e-4)
    optim = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=adam, clip_grad=dict(max_norm=0.1))
    )
    read: list[int] = []
    extract = model.head.patch_encoder.extract
    extract.register_forward_hook(lambda module, inputs, rois: read.append(len(inputs[2])))
    asked: list[int] = []
    model.head.decoder.register_forward_hook(
        lambda module, inputs, layers: asked.extend(inputs[0].counts)
    )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step():
        losses = model.train_step(data, optim)
        if not math.isfinite(losses['loss'].item()):
            raise RuntimeError(f'the loss is {losses["loss"].item()}')

    step()
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    learned = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    facts = dict(
        held=(weights + 2 * learned) / MB,
        boxes=max(read[1:7]) / options.batch,
        denoising=asked[0],
        units=max(int(each['data_samples'].gt_units.is_instance.sum()) for each in packed),
    )
    return facts, dict(step=step)


def medians(workers: dict, parts: tuple[str, ...], options: argparse.Namespace) -> dict:
    """Median seconds of every part of every worker, in turns; all have run once."""
    times = {(key, part): [] for key in workers for part in parts}
    for turn in range(options.repeats):
        order = list(workers.items())
        for key, worker in order if turn % 2 else reversed(order):
            for part in parts:
                times[key, part].append(worker.run(part, options.clock))
    return {key: statistics.median(seconds) for key, seconds in times.items()}


def stop(workers: dict) -> None:
    for worker in workers.values():
        worker.__exit__()


def predict_rows(options: argparse.Namespace) -> list[tuple]:
    """A row per number of patches and of classes."""
    workers: dict = {}
    try:
        for key in product(options.patches, options.classes):
            arguments = (*key, options)
            workers[key] = Worker(build_predict, arguments, options.device, options.threads)
        peaks = {  # which fills caches, too
            key: [worker.run(part, 'peak') for part in ('decoder', 'merging')]
            for key, worker in workers.items()
        }
        seconds = medians(workers, PREDICT, options)
    finally:
        stop(workers)
    rows = []
    for key, worker in workers.items():
        mine = {part: seconds[key, part] for part in PREDICT}
        head = sum(mine[part] for part in OURS[1:])
        rows.append((
            *map(str, key), *(f'{mine[part]:.3f}' for part in PREDICT[:-1]),
            f'{sum(mine[part] for part in OURS):.3f}', *(f'{peak:.0f}' for peak in peaks[key]),
            str(worker.parameters['asked']), f'{mine["pairwise"]:.3f}',
            f'{mine["pairwise"] / head:.2f}',
        ))  # fmt: skip
    return rows


def step_rows(options: argparse.Namespace) -> list[tuple]:
    """A row per number of patches and kind of backbone, one after the other."""
    rows = []
    height, width = (side + -side % 32 for side in options.size)
    for patches, classes, kind in product(options.patches, options.classes, options.backbones):
        frozen = kind == 'frozen'
        workers = {
            kind: Worker(
                build_step, (patches, classes, frozen, options), options.device, options.threads
            )
        }
        try:
            peak = workers[kind].run('step', 'peak')
            seconds = medians(workers, ('step',), options)[kind, 'step']
        finally:
            stop(workers)
        facts = workers[kind].parameters
        step = Step(
            height, width, patches, classes, len(things_of(classes)), facts['denoising'],
            round(facts['boxes']), facts['units'],
        )  # fmt: skip
        counted = {k: options.batch * v for k, v in activations(step, frozen).items()}
        total = sum(counted.values())
        rows.append((
            str(patches), str(classes), kind, str(options.batch), str(step.queries),
            str(step.boxes), f'{seconds:.2f}', f'{facts["held"]:.0f}', f'{peak:.0f}',
            f'{total:.0f}', f'{counted["backbone"] + counted["neck"]:.0f}',
            f'{counted["decoder"]:.0f}', f'{peak / total:.2f}',
        ))  # fmt: skip
    return rows


def report_split(options: argparse.Namespace) -> None:
    """Measure and print; rows of other configs and generators stay in the file."""
    line = conditions(f'split: {options.config}', options)
    out, options.out = options.out, None
    rows = samcp_split.split_rows(options, medians)
    report(line, samcp_split.HEADER, ['split'], lambda name, o: rows, options)
    if out:
        samcp_split.keep(rows, out.with_name(f'{out.name}_split.csv'))


def main() -> None:
    parser = common_parser(__doc__, (800, 1333))
    add = parser.add_argument
    add('--patches', type=int, nargs='+', default=[100, 300, 800], metavar='N')
    add('--classes', type=int, nargs='+', default=[133], metavar='C')
    add('--parts', nargs='+', choices=('predict', 'step', 'split'), default=['predict', 'step'],
        metavar='PART', help='predict, step, split; default the first two')  # fmt: skip
    add('--backbones', nargs='+', choices=('trained', 'frozen'), default=['trained', 'frozen'],
        metavar='KIND', help='of a step: trained, frozen; default both')  # fmt: skip
    add('--batch', type=int, default=1, help='images of a training step (1)')
    samcp_split.add_arguments(parser)
    options = parse(parser)
    if min(*options.patches, *options.classes) < 2:
        parser.error('--patches and --classes must be at least 2')
    height, width = options.size
    rows_of = dict(predict=predict_rows, step=step_rows)
    for part in options.parts:
        if part == 'split':
            report_split(argparse.Namespace(**vars(options)))
            continue
        out = options.out and options.out.with_name(f'{options.out.name}_{part}')
        part_options = argparse.Namespace(**{**vars(options), 'out': out})
        line = conditions(f'{part}: SAM-CP with ResNet-50, {height}x{width}', options)
        report(line, HEADERS[part], [part], lambda name, o: rows_of[name](o), part_options)


if __name__ == '__main__':
    main()
