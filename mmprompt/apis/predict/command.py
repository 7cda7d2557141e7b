"""``tools/predict.py``: images, folders or videos under many prompts -> pictures, maps and JSON."""

import argparse
from collections.abc import Iterator

import numpy as np

from mmprompt.apis.bases import is_config, is_samcp, is_spm
from mmprompt.apis.cli import OptionsAction, find_config, run_command_line
from mmprompt.apis.images import Source, find_sources
from mmprompt.apis.inference.inferencer import Inferencer, Predictions
from mmprompt.apis.inference.samcp_segmenter import ALL
from mmprompt.apis.predict.config import ConfigPredictor
from mmprompt.apis.predict.options import (
    parse_prompts,
    parse_texts,
    read_names,
    read_thresholds,
)
from mmprompt.apis.predict.outputs import OutputFolder, ResultSet, describe_sets
from mmprompt.apis.predict.pictures import predict, report
from mmprompt.apis.predict.samcp import predict_samcp
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

With a config of SAM-CP as --base and its weights as --prompts, patches are made of each picture and
kept in OUT/patches. All three results come from one pass, in OUT/NAME/semantic, …/instance and
…/panoptic, for each list of --texts; without any, OUT/trained has the classes of the config:

  python tools/predict.py photos/ --base CONFIG --prompts head.safetensors \
      --texts "sand; sky; kite, toy kite; person" --things "kite; person" --out predictions
"""
#: Options that SAM-CP alone has.
PATCHES = (
    'generator', 'weights', 'points_per_side', 'generator_options', 'patches', 'finer',
    'finer_margin', 'patch_scores',
)  # fmt: skip


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
        '--prompts',
        nargs='+',
        default=[],
        metavar='FILE',
        help='prompt files, or the weights of a SAM-CP; NAME=FILE names one',
    )
    add('--texts', action='append', default=[], help="'road; sky; car, automobile', zero-shot")
    add('--out', required=True, help='folder for the results')
    add('--task', choices=(*TASKS, ALL), help='default: semantic; of SAM-CP all three')
    add('--things', help="classes counted one by one, 'car; person' (default: known names)")
    add('--short-side', type=int, help='pixels of the shorter side in the network (default: kept)')
    add(
        '--score-threshold',
        type=float,
        help='panoptic: least score of a segment (0.8; of SAM-CP as its config says)',
    )
    add('--overlap-threshold', type=float, help='panoptic: least visible share (0.8; likewise)')
    add('--top-k', type=int, help='instance: how many at most (100)')
    add(
        '--batch',
        type=int,
        default=1,
        help='images that go through the network together (SAM-CP: one)',
    )
    add('--device', default='cpu', help='cpu, cuda, cuda:1')
    samcp = parser.add_argument_group('SAM-CP')
    add = samcp.add_argument
    add('--generator', metavar='NAME', help='of patches (default: that of the training)')
    add('--weights', help='of the generator, as tools/generate_patches.py takes them')
    add('--points-per-side', type=int, help='of the grid of points of a SAM')
    add('--generator-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    add('--patches', metavar='STORE', help='a store that has patches of these images')
    add(
        '--finer',
        action='append',
        help="'person: head; arm': segment every person that was found again, enlarged",
    )
    add('--finer-margin', type=float, help='around these, as a share of their longer side (0.1)')
    add(
        '--patch-scores',
        action='store_true',
        default=None,
        help='for each instance, its patches and the score that each gets alone',
    )
    add = parser.add_argument
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
        sources = find_sources(args.inputs, args.out)  # said before the model is read
        if is_config(args.base) and is_samcp(find_config(args.base)):
            return predict_samcp(args, sources)
        return _predict_many(args, sources)

    return run_command_line(body)


def _predict_many(args: argparse.Namespace, sources: list[Source]) -> int:
    for name in PATCHES:
        if getattr(args, name) is not None:
            raise UserError(
                f'--{name.replace("_", "-")}: expected a config of SAM-CP as --base, found '
                f'{args.base}. Leave the option out.'
            )
    task, thresholds = args.task or 'semantic', read_thresholds(args)
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
            things=read_names(args.things),
            short_side=args.short_side,
        )
    # A wrong option is said here, before it fails for each picture.
    segment(np.zeros((32, 32, 3), np.uint8), task, **thresholds)
    sets = {
        name: ResultSet(task, classes, segment.things[name])
        for name, classes in segment.classes.items()
    }
    run = dict(task=task, short_side=args.short_side, **thresholds)
    folder = OutputFolder(args.out, sets, run | describe_sets(segment), args.force)

    def answer(items: list) -> Iterator[Predictions]:
        return segment.stream([p for _, p in items], task, len(items), **thresholds)

    return report(predict(answer, sources, folder, args.batch), segment.classes, args.out)
