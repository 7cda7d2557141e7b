"""Seconds of K prompt sets at once beside K runs of one prompt set each, in one run and in turns.

    python benchmarks/many_prompts.py [--base nano|focal-t|FILE] [--counts 1 2 4 8] [--device cuda]
    python benchmarks/many_prompts.py --threads 1 --clock processor   # on a machine others use

One image goes from RGB values to K label maps of its own size. 'classes' are prompts that learned
class embeddings alone (SemPrompt): the decoder runs once for all of them. 'queries' learned its
queries, too (SSPrompt). Values are random, each set has another number of classes; 'focal-t' has
random weights, which cost the same.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
NANO = 'mmprompt://seem-nano_streets'
WORDS = ('road', 'sky', 'car', 'building', 'person', 'bus', 'wall', 'fence', 'train')


def random_base(folder: Path) -> str:
    """A Focal-T with random weights and the smallest of text encoders."""
    from mmengine.config import Config

    from mmprompt.foundation.seem import SEEM
    from mmprompt.foundation.seem.checkpoint import save_base
    from mmprompt.foundation.seem.tokenizer import collect_token_ids

    config = Config.fromfile(str(ROOT / 'configs/_base_/models/focal-t.py')).seem.to_dict()
    config['text_encoder'].update(
        width=16, num_layers=1, num_heads=2, token_ids=collect_token_ids(WORDS, ('{}',))
    )
    torch.manual_seed(0)
    return str(save_base(folder / 'focal-t.safetensors', SEEM(**config), config))


def random_prompt(fingerprint: str, classes: list[str], decoder, queries: bool):
    """A prompt file in memory, as training would have written it."""
    from mmprompt.common.prompt_file import PromptFile

    rows = {'semantic_prompt': (len(classes), decoder.class_embed.shape[1])}
    count = decoder.num_queries - 1
    spatial = dict(type='SpaPrompt' if queries else 'DefaultPrompt', num_prompts=count)
    if queries:
        rows['spatial_prompt'] = (count, decoder.dim)
    tensors = {}
    for part, shape in rows.items():
        tensors[f'{part}.offset'] = 0.05 * torch.randn(shape)
        tensors[f'{part}.weight.theta'] = torch.randn(shape[0])
    recipe = dict(
        spatial_prompt=spatial,
        semantic_prompt=dict(type='SemPrompt'),
        text=dict(texts=classes, templates=['{}']),
    )
    return PromptFile(tensors, 'random', classes, fingerprint, recipe)


CLOCKS = dict(seconds=time.perf_counter, processor=time.process_time)


def seconds(call, options: argparse.Namespace) -> float:
    clock = CLOCKS[options.clock]
    start = clock()
    call()
    if options.device.startswith('cuda'):
        torch.cuda.synchronize()
    return clock() - start


def compare(base: str, count: int, queries: bool, image: np.ndarray, options: argparse.Namespace):
    """(seconds of one set, of all sets at once, of all one by one), medians."""
    from mmprompt.methods.ssprompt.many import ManyPrompts
    from mmprompt.methods.ssprompt.prompt_sets import FrozenBase

    torch.manual_seed(0)
    frozen = FrozenBase(base)
    files = {}
    for index in range(count):
        classes = list(WORDS[: 3 + index % (len(WORDS) - 2)])
        files[f'set-{index}'] = random_prompt(
            frozen.fingerprint, classes, frozen.seem.decoder, queries
        )
    device = options.device
    together = ManyPrompts(base, files, device=device)
    singles = [ManyPrompts(base, {name: file}, device=device) for name, file in files.items()]
    for single in singles[1:]:  # one copy of the weights is enough
        single.seem = singles[0].seem

    def one_by_one() -> None:
        for single in singles:
            single.segment([image])

    calls = (lambda: singles[0].segment([image]), lambda: together.segment([image]), one_by_one)
    times = [[] for _ in calls]
    for turn in range(options.repeats + 1):
        for call, found in zip(calls, times):
            spent = seconds(call, options)
            if turn:  # the first of all warms up
                found.append(spent)
    return [statistics.median(found) for found in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--base', default='nano', help="'nano', 'focal-t' or a base file")
    parser.add_argument('--counts', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--kinds', nargs='+', default=['classes', 'queries'], metavar='KIND')
    parser.add_argument('--size', type=int, nargs=2, default=[512, 1024], metavar=('H', 'W'))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, help='of PyTorch on a CPU')
    parser.add_argument('--clock', choices=CLOCKS, default='seconds',
        help='processor: what the process computes itself; for busy machines')  # fmt: skip
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    if args.device.startswith('cuda') and args.clock == 'processor':
        parser.error('--clock processor: a GPU computes outside of the process')
    if args.threads:
        torch.set_num_threads(args.threads)
    image = np.random.default_rng(0).integers(256, size=(*args.size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        base = random_base(Path(folder)) if args.base == 'focal-t' else args.base
        base = NANO if base == 'nano' else base
        print(f'{args.base}, {args.size[0]}x{args.size[1]}, {args.device}, {args.clock}')
        print('| prompts | K | K at once | one | K one by one | ratio | per further set, of one |')
        print('|---|---|---|---|---|---|---|')
        for kind in args.kinds:
            queries = kind == 'queries'
            for count in args.counts:
                one, many, apart = compare(base, count, queries, image, args)
                more = f'{(many - one) / (count - 1) / one:.2f}' if count > 1 else '-'
                print(
                    f'| {kind} | {count} | {many:.3f} | {one:.3f} | '
                    f'{apart:.3f} | {many / apart:.2f} | {more} |',
                    flush=True,
                )


if __name__ == '__main__':
    main()
