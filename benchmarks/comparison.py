"""What the benchmarks share: methods that run in turns, random data, ratios, and the table."""

import argparse
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from measure import Worker  # beside this file
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmprompt.apis.csv_rows import write_csv
from mmprompt.apis.markdown import grid
from mmprompt.common.files import atomic_file


def batch_of(number: int, size: Sequence[int], classes: int) -> dict:
    """Random images (3, H, W) and labels of 16 x 16 pixels each, as a data loader gives them."""
    size = tuple(size)
    cells = torch.randint(classes, (number, 1, *(-(-side // 16) for side in size)))
    labels = cells.repeat_interleave(16, 2).repeat_interleave(16, 3)[..., : size[0], : size[1]]
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    images = torch.randint(256, (number, 3, *size), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def in_turns(
    build: Callable, methods: Mapping[str, tuple], part: str, options: argparse.Namespace
) -> dict[str, dict]:
    """Figures of every method, each in a process of its own, in turns.

    Args:
        build: gives ({'held': MB, ...}, {part: call}); see `Worker`.
        methods: arguments of `build` by name.
        part: which call is measured.
        options: `device`, `threads`, `clock` and `repeats`.

    Returns:
        By name what `build` says of it, `peak` (MB) and `seconds` of each round.
    """
    workers: dict[str, Worker] = {}
    try:
        for name, arguments in methods.items():
            workers[name] = Worker(build, arguments, options.device, options.threads)
            workers[name].run(part)  # fills caches, makes the momentum, chooses algorithms
        found = {name: dict(worker.parameters, seconds=[]) for name, worker in workers.items()}
        for name, worker in workers.items():
            found[name]['peak'] = worker.run(part, 'peak')
        for turn in range(options.repeats):
            order = list(workers.items())
            for name, worker in order if turn % 2 else reversed(order):
                found[name]['seconds'].append(worker.run(part, options.clock))
    finally:
        for worker in workers.values():
            worker.__exit__()
    return found


def ratios(mine: Mapping, other: Mapping | None) -> tuple[str, str]:
    """Time (median over rounds) and memory (held and peak) of one method by another's."""
    if other is None:
        return '', ''
    time = statistics.median(a / b for a, b in zip(mine['seconds'], other['seconds']))
    memory = (mine['held'] + mine['peak']) / (other['held'] + other['peak'])
    return f'{time:.2f}', f'{memory:.2f}'


def processor(device: str) -> str:
    """The name of what computes."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def conditions(subject: str, options: argparse.Namespace, further: Iterable[str] = ()) -> str:
    """One line that says what was measured under which conditions."""
    threads = options.threads or torch.get_num_threads()
    facts = [
        subject,
        processor(options.device),
        *([f'{threads} threads'] if options.device == 'cpu' else []),
        f'torch {torch.__version__}',
        *further,
        f'median of {options.repeats}',
        *(['processor time'] if options.clock == 'processor' else []),
    ]
    return ', '.join(facts)


def common_parser(text: str | None, size: Sequence[int]) -> argparse.ArgumentParser:
    """The arguments of every benchmark; `text` is the module's own, `size` the default."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--device', choices=('cpu', 'cuda'), default='cpu')
    add('--threads', type=int, help="of the CPU; default PyTorch's own choice")
    add('--clock', choices=('seconds', 'processor'), default='seconds',
        help='processor: what the process computes itself; for busy machines')  # fmt: skip
    add('--repeats', type=int, default=5)
    add('--size', nargs=2, type=int, default=list(size), metavar=('H', 'W'))
    add('--out', type=Path, metavar='PATH', help='write PATH.md and PATH.csv')
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments given; ends the program where they make no sense."""
    options = parser.parse_args()
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no CUDA device here')
    if options.device == 'cuda' and options.clock == 'processor':
        parser.error('--clock processor: a GPU computes outside of the process')
    if min(options.repeats, getattr(options, 'batch', 1), *options.size) < 1:
        parser.error('--repeats, --batch and --size must be at least 1')
    return options


def report(
    line: str,
    header: Sequence[str],
    parts: Iterable[str],
    rows_of: Callable[[str, argparse.Namespace], list[tuple]],
    options: argparse.Namespace,
) -> None:
    """Measure part by part; print each and write the whole so far, so that nothing is lost.

    Args:
        line: the `conditions`.
        header: of the table.
        parts: what `rows_of` measures.
        rows_of: (part, options) -> rows of the table.
        options: with `out`.
    """
    print(line, flush=True)
    rows: list[tuple] = []
    for part in parts:
        found = rows_of(part, options)
        print('', grid(header, found), sep='\n', flush=True)
        rows += found
        if options.out:
            with atomic_file(options.out.with_suffix('.md')) as stream:
                stream.write(f'{line}\n\n{grid(header, rows)}\n'.encode())
            path = options.out.with_suffix('.csv')
            write_csv(path, header, [dict(zip(header, row, strict=True)) for row in rows])
