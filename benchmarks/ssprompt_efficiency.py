"""Time and peak memory of a training step of SSPrompt beside CoOp and LOCN (the papers' Table 9).

The configs of Focal-T with 16 shots, built with random weights and fed with random images. Each
method runs in a process of its own, in turns with the others; a ratio is the median over rounds.

    python benchmarks/ssprompt_efficiency.py [--settings ade20k] [--device cuda] [--out PATH]

What learns words is measured twice. `coop` and `locn` cut their texts after the longest one, as
this library does. `coop-77` and `locn-77` pad them to CLIP's 77 tokens, as the published code does;
the result is the same, since attention is causal. The papers' ratios are to the latter.

Memory is what PyTorch or, on a CPU, the process holds for weights and at the peak of a step.
"""

import argparse
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
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
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import mmprompt  # noqa: F401, registers the models
from mmprompt.foundation.seem.tokenizer import END
from mmprompt.registry import MODELS

CONFIGS = Path(__file__).resolve().parent.parent / 'configs/ssprompt'
SETTINGS = ('mapillary', 'pascal-context', 'ade20k')
CACHE = dict(root=None, memory_gb=64.0)
#: name -> (`model.method`, whether texts are padded to the encoder's length, `feature_cache`).
METHODS = {
    'coop-77': ('coop', True, None),
    'locn-77': ('locn', True, None),
    'coop': ('coop', False, None),
    'locn': ('locn', False, None),
    'ssprompt': ('ssprompt', False, None),
    'ssprompt-cache': ('ssprompt', False, CACHE),
}
REFERENCES = ('coop-77', 'coop')
#: (ms per image, GB) of CoOp, LOCN, SSPrompt in the papers, beside what they ran.
PAPER = {
    'mapillary': {'coop-77': (155.0, 4.52), 'locn-77': (158.0, 4.52), 'ssprompt': (122.4, 3.22)},
    'pascal-context': {
        'coop-77': (122.1, 4.30), 'locn-77': (122.4, 4.30), 'ssprompt': (83.4, 2.49)
    },
    'ade20k': {'coop-77': (87.5, 8.22), 'locn-77': (89.5, 8.22), 'ssprompt': (56.0, 3.82)},
}  # fmt: skip
HEADER = (
    'setting', 'classes', 'method', 'ms per image', 'weights (MB)', 'step (MB)',
    'time / coop-77', 'memory / coop-77', 'paper: time / CoOp', 'paper: memory / CoOp',
    'time / coop', 'memory / coop',
)  # fmt: skip


def build_model(setting: str, method: str) -> torch.nn.Module:
    """The segmentor of a config with random weights and random class embeddings."""
    name, _, cache = METHODS[method]
    config = Config.fromfile(str(CONFIGS / f'focal-t_{setting}_16shot.py')).model
    config.update(method=name, feature_cache=cache)
    model = MODELS.build(config)
    head = model.decode_head
    width = head.no_object.shape[1]
    rows = F.normalize(torch.randn(len(model.classes) + 1, width), dim=1)
    head.fill(rows, model.texts)  # in place of a base file
    return model


def pad_texts(prompt: torch.nn.Module) -> None:
    """Let CoOp or LOCN read texts of the encoder's full length."""
    if hasattr(prompt, 'ids'):  # CoOp: (T, L - M)
        room = prompt.text_encoder.context_length - prompt.num_tokens - prompt.ids.shape[1]
        prompt.ids = F.pad(prompt.ids, (0, room), value=END)
        return
    known = len(prompt.before) + 1 + len(prompt.after)
    end = len(prompt.before) + len(prompt.after)  # the first end token
    prompt.after = F.pad(prompt.after, (0, prompt.text_encoder.context_length - known), value=END)
    encode = prompt.text_encoder.encode_words
    prompt.text_encoder.encode_words = lambda words, last: encode(words, last.fill_(end))


@torch.inference_mode(False)
def build(setting: str, method: str, options: argparse.Namespace):
    """({'held': MB, 'classes': C}, {'step': a training step}) of one method."""
    init_default_scope('mmprompt')
    model = build_model(setting, method).to(options.device).train()
    if METHODS[method][1]:
        pad_texts(model.decode_head.semantic_prompt)
    schedule = CONFIGS.parent / '_base_/schedules/ssprompt_published.py'
    optim = build_optim_wrapper(model, Config.fromfile(str(schedule)).optim_wrapper)
    data = batch_of(options.batch, options.size, len(model.classes))
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step():
        model.train_step(data, optim)

    return dict(held=held / MB, classes=len(model.classes)), dict(step=step)


def rows_of(setting: str, options: argparse.Namespace) -> list[tuple]:
    """A row per method of one setting."""
    methods = {method: (setting, method, options) for method in options.methods}
    found = in_turns(build, methods, 'step', options)
    paper = PAPER[setting]
    rows = []
    for method, mine in found.items():
        beside = ('', '')
        if method in paper:
            published = zip(paper[method], paper['coop-77'])
            beside = tuple(f'{a / b:.2f}' for a, b in published)
        (time77, memory77), (time, memory) = (ratios(mine, found.get(r)) for r in REFERENCES)
        per_image = 1000 * statistics.median(mine['seconds']) / options.batch
        rows.append((
            setting, str(mine['classes']), method, f'{per_image:.0f}', f'{mine["held"]:.0f}',
            f'{mine["peak"]:.0f}', time77, memory77, *beside, time, memory,
        ))  # fmt: skip
    return rows


def main() -> None:
    parser = common_parser(__doc__, (512, 683))
    add = parser.add_argument
    add('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS), metavar='NAME',
        help=f'some of {", ".join(SETTINGS)}; default all')  # fmt: skip
    add('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='NAME',
        help=f'some of {", ".join(METHODS)}; default all')  # fmt: skip
    add('--batch', type=int, default=2, help='images per step; the papers have 2 per GPU')
    options = parse(parser)
    height, width = options.size
    subject = f'Focal-T, {options.batch} x {height}x{width}'
    report(conditions(subject, options), HEADER, options.settings, rows_of, options)


if __name__ == '__main__':
    main()
