"""``tools/predict.py``: images, folders or videos under many prompts -> pictures, maps and JSON."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmprompt.apis.cli import find_config, run_command_line
from mmprompt.apis.images import Source, find_sources, read_frames, read_picture
from mmprompt.apis.inferencer import ZERO_SHOT, Inferencer
from mmprompt.apis.interim import is_spm
from mmprompt.apis.learn_spm import is_config
from mmprompt.apis.outputs import OutputFolder, Place
from mmprompt.apis.predict_config import ConfigPredictor
from mmprompt.common.errors import UserError
from mmprompt.methods.ssprompt.many import TASKS

EPILOG = """\
Written for each prompt set NAME, with the folders of the input kept:

  OUT/NAME/overlays/….png   the picture with regions, outlines and names
  OUT/NAME/labels/….png     class indices (semantic) or segment ids (panoptic, 0 = none): 8 bits
                            with a palette, 16 bits where a value exceeds 255; none for instances
  OUT/NAME/segments/….json  segments in COCO's form: class, score, box, RLE
  OUT/NAME/classes.json     class names and colours, in the order of the indices

Pictures are taken as they are viewed, EXIF orientation applied, and so is all that is written.
A second call goes on where the first one stopped. A picture that cannot be read is reported, the
others go on, and the exit status is 1.
"""


def parse_texts(values: Sequence[str]) -> dict[str, list]:
    """``road; sky; car, automobile`` -> lists of names and synonyms; ``NAME=…`` names the list.

    Raises:
        UserError: an empty list or name, or two lists of one name.
    """
    found: dict[str, list] = {}
    for value in values:
        name, names = _named(value, ZERO_SHOT)
        classes = [[w.strip() for w in part.split(',')] for part in names.split(';')]
        if any(not word for group in classes for word in group) or name in found:
            wrong = f'a second list named {name!r}' if name in found else f'{value!r}'
            raise UserError(
                f"--texts: expected class names such as 'road; sky; car, automobile' (; between "
                f"classes, a comma between synonyms), or 'NAME=road; sky' to name the list, found "
                f'{wrong}.'
            )
        found[name] = [group[0] if len(group) == 1 else group for group in classes]
    return found


def parse_prompts(values: Sequence[str]) -> list[str] | dict[str, str]:
    """Paths; a dict where any is named, as in ``NAME=path``."""
    if all(Path(value).is_file() or _named(value, '')[0] == '' for value in values):
        return list(values)
    pairs = [_named(v, '') if not Path(v).is_file() else ('', v) for v in values]
    named = [(name or Path(path).stem, path) for name, path in pairs]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f'--prompts: expected different names, found {twice!r} twice. Name them.')
    return dict(named)


def _named(value: str, default: str) -> tuple[str, str]:
    found = re.fullmatch(r'\s*([\w.-]+)=(.*)', value, re.DOTALL)
    return (found[1], found[2]) if found else (default, value)


def predict(
    segment: Inferencer,
    inputs: Sequence[str],
    folder: OutputFolder,
    task: str,
    batch: int = 1,
    **thresholds: Any,
) -> tuple[int, int, int]:
    """Predict files, folders, patterns and videos, and write what `EPILOG` tells.

    Args:
        segment: of a base and its prompts.
        inputs: see `images.find_sources`.
        folder: where results go.
        task: see `Inferencer.stream`.
        batch: pictures that go through the network together.
        thresholds: see `Inferencer.stream`.

    Returns:
        How many pictures were predicted, were there already, and failed.
    """
    done = there = failed = 0
    waiting: list[tuple[Place, np.ndarray]] = []

    def work() -> int:
        pictures = [picture for _, picture in waiting]
        found = segment.stream(pictures, task, max(1, len(pictures)), **thresholds)
        for (place, picture), predictions in zip(waiting, found):
            folder.write(place, picture, predictions)
            print(f'{place.origin} -> {place.name}', flush=True)
        waiting.clear()
        return len(pictures)

    for source in find_sources(inputs):
        try:
            for place, picture in _pictures(source, folder):
                if picture is None:
                    there += 1
                    continue
                waiting.append((place, picture))
                if len(waiting) == batch:
                    done += work()
        except UserError as error:
            failed += 1
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)
    return done + work(), there, failed


def _pictures(source: Source, folder: OutputFolder) -> Iterator[tuple[Place, np.ndarray | None]]:
    """The pictures of a source, None for one that is done."""
    if not source.is_video:
        place = Place(source.path, source.name)
        yield place, None if folder.has(place) else read_picture(source.path)
        return
    first = 0
    while folder.has(place := _frame(source, first)):
        first += 1
        yield place, None
    for number, picture in read_frames(source.path, first):
        yield _frame(source, number), picture


def _frame(source: Source, number: int) -> Place:
    return Place(source.path, source.name / f'{number:06d}', number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='predict.py',
        description='Predict images, folders or videos under many prompts at once.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('inputs', nargs='+', metavar='IMAGE', help='image, video, folder or pattern')
    add(
        '--base', required=True, help='base file, public SEEM checkpoint, mmprompt://NAME or config'
    )
    add(
        '--prompts', nargs='+', default=[], metavar='FILE', help='prompt files; NAME=FILE names one'
    )
    add('--texts', action='append', default=[], help="'road; sky; car, automobile', zero-shot")
    add('--out', required=True, help='folder for the results')
    add('--task', choices=TASKS, default='semantic')
    add('--things', help="classes counted one by one, 'car; person' (default: known names)")
    add('--short-side', type=int, help='pixels of the shorter side in the network (default: kept)')
    add('--score-threshold', type=float, help='panoptic: least score of a segment (0.8)')
    add('--overlap-threshold', type=float, help='panoptic: least visible share (0.8)')
    add('--top-k', type=int, help='instance: how many at most (100)')
    add('--batch', type=int, default=1, help='images that go through the network together')
    add('--device', default='cpu', help='cpu, cuda, cuda:1')
    add('--force', action='store_true', help='predict again what is there')
    return parser


def _is_config_of_spm(base: str) -> bool:
    return is_config(base) and is_spm(find_config(base))


def _refuse_options(args: argparse.Namespace) -> None:
    """Raises `UserError` for what a config of SPM decides by itself."""
    for name in ('texts', 'things', 'short_side'):
        if getattr(args, name):
            raise UserError(
                f'--{name.replace("_", "-")}: expected no such option for a config of SPM, which '
                f'knows its classes and the size of images, found it. Leave it out.'
            )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    args = _parser().parse_args(argv)

    def body() -> int:
        if args.batch < 1:
            raise UserError(f'--batch: expected a number from 1 up, found {args.batch}.')
        names = ('score_threshold', 'overlap_threshold', 'top_k')
        thresholds = {k: getattr(args, k) for k in names if getattr(args, k) is not None}
        find_sources(args.inputs)  # said before the model is read
        things = args.things and [name.strip() for name in args.things.split(';')]
        prompts = parse_prompts(args.prompts)
        if _is_config_of_spm(args.base):
            _refuse_options(args)
            segment = ConfigPredictor(args.base, prompts, args.device)
        else:
            segment = Inferencer(
                args.base,
                device=args.device,
                prompts=prompts,
                texts=parse_texts(args.texts),
                things=things,
                short_side=args.short_side,
            )
        # A wrong option is said here, before it fails for each picture.
        segment(np.zeros((32, 32, 3), np.uint8), args.task, **thresholds)
        settings = dict(task=args.task, short_side=args.short_side, **thresholds)
        folder = OutputFolder(args.out, segment, settings, args.force)
        done, there, failed = predict(
            segment, args.inputs, folder, args.task, args.batch, **thresholds
        )
        sets = ', '.join(segment.classes)
        print(f'{done} predicted ({sets}), {there} there already, {failed} failed: {args.out}')
        return 1 if failed else 0

    return run_command_line(body)
