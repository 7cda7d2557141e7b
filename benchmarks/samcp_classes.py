"""What it costs SAM-CP to look for no class, for one, and for thousands.

ResNet-50, FPN and SAM-CP as published, random weights and a random picture, cut into patches. The
texts are the rows of LVIS, Objects365 and OpenImages one behind the other, out of
$MMPROMPT_DATA/text_embeddings (docs/datasets.md), or random ones where those files are not. Three
of five classes are things. All classes are equally likely, so that all of them claim pixels, the
worst that can happen to merging. Every number of classes runs in a process of its own.

    python benchmarks/samcp_classes.py [--classes 0 1 80 1203 2000] [--patches 100] [--out PATH]
    python benchmarks/samcp_classes.py --threads 1 --clock processor --repeats 1   # a busy machine

*head* is patch encoder, decoder and classifier, *merging* all three results, *fused scores* what
`open_vocabulary` adds (of a random projection in CLIP's place), *predict* everything but loading.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from comparison import common_parser, conditions, parse, report  # beside this file
from measure import Worker
from mmengine.registry import init_default_scope
from samcp_scene import TEXT_DIM, build_model, loading, things_of
from torch.nn import functional as F

from mmprompt.methods.samcp.canvas import Canvas
from mmprompt.methods.samcp.head import batch_of
from mmprompt.methods.samcp.open_vocabulary import OpenVocabularyScores
from mmprompt.methods.samcp.predict import SAMCPPredictor, read_scores

BANKS = ('lvis_v1_clip_a+cname.npy', 'o365_clip_a+cnamefix.npy', 'oid_clip_a+cname.npy')
TRAINED = 80
PARTS = ('head', 'merging', 'fused scores', 'predict')
HEADER = (
    'classes', 'texts', 'queries', *(f'{part} (s)' for part in PARTS),
    *(f'peak: {part} (MB)' for part in PARTS),
)  # fmt: skip


def texts_of(classes: int) -> tuple[torch.Tensor, str]:
    """Rows (C, 512), and where they are from."""
    folder = Path(os.environ.get('MMPROMPT_DATA', 'data')) / 'text_embeddings'
    if all((folder / name).is_file() for name in BANKS):
        rows = np.concatenate([np.load(folder / name) for name in BANKS])
        if len(rows) >= classes:
            return torch.from_numpy(rows[:classes].astype(np.float32)), 'names'
    return torch.randn(classes, TEXT_DIM), 'random'


class Projection:
    """In the place of a CLIP's: from the last map of a ResNet-50 to embeddings."""

    logit_scale = 100.0

    def __init__(self, device: str) -> None:
        self.weight = torch.randn(2048, TEXT_DIM, device=device)

    def embed(self, pooled: torch.Tensor) -> torch.Tensor:
        return F.normalize(pooled @ self.weight, dim=-1)


def build(classes: int, options: argparse.Namespace):
    """({'texts': their source, 'queries': M}, calls of `PARTS`) for one image."""
    init_default_scope('mmprompt')
    with tempfile.TemporaryDirectory(prefix='samcp-') as folder:
        size = tuple(options.size)
        packed = loading(Path(folder), 1, options.patches, TRAINED, size)[0]()
    model = build_model(TRAINED, frozen=False).to(options.device).eval()
    rows, source = texts_of(classes)
    names = [f'class {i}' for i in range(classes)]
    model.set_classes(names, things_of(classes), rows.to(options.device))
    model.head.classifier.prior.zero_()
    data = model.data_preprocessor({key: [value] for key, value in packed.items()}, False)
    inputs, samples = data['inputs'], data['data_samples']
    features, views = model.encode(inputs, [samples[0].metainfo])
    batch = batch_of(samples, features)
    scores = read_scores(model.head(features, batch), 0)
    if options.patches > 1 and classes and float(scores.semantic.min()) < 0.3:
        raise RuntimeError('some class is too unlikely to be merged')
    clip, predictor, fusing = Projection(options.device), SAMCPPredictor(), OpenVocabularyScores()
    patches = samples[0].patch_set.select(samples[0].patches.ids.cpu().numpy())
    texts = model.head.entries, model.head.entry_class
    seen = torch.ones(classes, dtype=torch.bool, device=options.device)

    def fused():
        canvas = Canvas(patches, inputs.device)
        return fusing(scores, canvas, predictor.merged, views[0], clip, texts, seen)

    calls = {
        'head': lambda: model.head(features, batch),
        'merging': lambda: predictor.add(samples[0], scores),
        'fused scores': fused,
        'predict': lambda: model.predict(inputs, samples),
    }
    return dict(texts=source, queries=classes + len(samples[0].patches)), calls


def rows_of(classes: str, options: argparse.Namespace) -> list[tuple]:
    """One row."""
    worker = Worker(build, (int(classes), options), options.device, options.threads)
    with worker:
        peaks = [worker.run(part, 'peak') for part in PARTS]  # which fills caches, too
        seconds = [
            statistics.median(worker.run(part, options.clock) for _ in range(options.repeats))
            for part in PARTS
        ]
    return [(
        classes, worker.parameters['texts'], str(worker.parameters['queries']),
        *(f'{x:.3f}' for x in seconds), *(f'{x:.0f}' for x in peaks),
    )]  # fmt: skip


def main() -> None:
    parser = common_parser(__doc__, (800, 1333))
    add = parser.add_argument
    add('--classes', type=int, nargs='+', default=[0, 1, 80, 1203, 2000], metavar='C')
    add('--patches', type=int, default=100, metavar='N')
    options = parse(parser)
    if min(options.classes) < 0 or options.patches < 2:
        parser.error('--classes must be at least 0 and --patches at least 2')
    size = 'x'.join(map(str, options.size))
    line = conditions(f'SAM-CP with ResNet-50, {size}, {options.patches} patches', options)
    report(line, HEADER, [str(c) for c in options.classes], rows_of, options)


if __name__ == '__main__':
    main()
