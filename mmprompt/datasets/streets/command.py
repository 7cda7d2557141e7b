"""Command line of `tools/make_streets.py`."""

import argparse
import sys
import time

import cv2

from mmprompt.common.errors import UserError
from mmprompt.datasets.streets.conditions import CONDITIONS
from mmprompt.datasets.streets.writer import generate


def _size(text: str):
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH such as 256x512, found {text!r}')
    return int(height), int(width)


def main(argv=None) -> int:
    """Parse, generate, report; returns the exit status (2 for what the user can mend)."""
    parser = argparse.ArgumentParser(
        description='Generate one split of the procedural Streets dataset under one condition. '
        'Give each condition its own --out.'
    )
    parser.add_argument('--out', required=True, help='dataset root')
    parser.add_argument('--split', default='train', help='train, val, ...')
    parser.add_argument('--num', type=int, default=500, help='number of images')
    parser.add_argument('--condition', choices=CONDITIONS, default='clear')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=_size, default=(256, 512), metavar='HxW')
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    start = time.perf_counter()

    def progress(done: int) -> None:
        if done % 200 == 0:
            print(f'{done}/{args.num}', flush=True)

    try:
        written = generate(
            args.out, args.split, args.num, args.condition, args.seed, args.size, progress
        )
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    if written:
        print(
            f'{args.out}: wrote {args.num} images of split {args.split!r}, condition '
            f'{args.condition}, {args.num / seconds:.1f} images/s'
        )
    else:
        print(f'{args.out}: split {args.split!r} is complete with these settings; reused')
    return 0
