"""``tools/learn.py``: your images and masks -> learned prompts, a table, pictures, a prompt file.

Everything is checked before anything is trained. A second call goes on where the first one stopped.
"""

import argparse
import gc
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmprompt.apis.bases import is_config
from mmprompt.apis.cli import find_config, resolve_config, run_command_line
from mmprompt.apis.learn import spm
from mmprompt.apis.learn.config import METHODS, Recipe, methods_of
from mmprompt.apis.learn.prepare import Division, prepare
from mmprompt.apis.learn.results import draw_pictures, write_table
from mmprompt.apis.learn.your_data import Sources
from mmprompt.apis.test import test
from mmprompt.apis.train import latest_checkpoint, train
from mmprompt.common.audit import trained_parameters
from mmprompt.common.errors import UserError
from mmprompt.common.files import write_json
from mmprompt.datasets.parts import PARTS
from mmprompt.registry import MODELS

DEFAULT, QUICK = ('zero-shot', 'spaprompt', 'semprompt', 'ssprompt'), ('zero-shot', 'ssprompt')
STEPS, LR = 200, 0.01
EPILOG = """\
classes.txt, one class per line; '|' separates synonyms, which are averaged:

  road | street           # masks hold 0 for the first line, 1 for the second, ...
  7: sidewalk             # ... unless lines begin with the number (or COCO category id)
  building  #804000       # colour masks: the colour, also as 128 64 0

example:
  python tools/learn.py --images photos/ --masks masks/ --classes classes.txt \\
      --base mmprompt://seem-nano_streets --out work_dirs/mine

with a config of SPM as --base, a head and the prompts of a frozen backbone are learned:
  python tools/learn.py --images photos/ --masks masks/ --classes classes.txt \\
      --base configs/spm/spm_r50_psp_camvid.py --out work_dirs/mine

docs/your-data.md tells the rest.
"""


def run_method(method: str, out: Path) -> dict:
    """Train and measure one method, or read what an earlier call measured.

    Returns:
        method, metrics, parameters, bytes and seconds.
    """
    folder = out / method
    record = folder / 'result.json'
    if record.is_file():
        return json.loads(record.read_text(encoding='utf-8'))
    cfg = find_config(out / 'configs' / f'{method}.py')
    parameters = sum(trained_parameters(MODELS.build(cfg.model)).values())
    prompt, start = None, time.perf_counter()
    if parameters:
        print(f'\n== train {METHODS[method]}: {parameters:,} parameters', flush=True)
        cfg.work_dir = str(folder)
        train(cfg, 'auto' if latest_checkpoint(folder) else None)
        prompt = folder / spm.files_of(method)[0]
    seconds = round(time.perf_counter() - start, 1) if prompt else None
    print(f'\n== measure {METHODS[method]}', flush=True)
    cfg.work_dir = str(folder / 'test')
    metrics = test(cfg, prompt)
    gc.collect()  # the Runner's reference cycles hold the cached features
    result = dict(
        method=method,
        metrics=metrics,
        parameters=parameters,
        bytes=sum((folder / n).stat().st_size for n in spm.files_of(method) if prompt),
        seconds=seconds,
    )
    write_json(record, result)
    return result


def report(manifest: Mapping) -> str:
    """What was found, before anything is trained."""
    counts = manifest['images_per_class']
    width = max(map(len, counts['train']))
    lines = ['images: ' + ', '.join(f'{len(manifest["parts"][p])} {p}' for p in PARTS)]
    lines.append(f'{"class":<{width}}  ' + '  '.join(f'{part:>5}' for part in PARTS))
    for name in counts['train']:
        lines.append(f'{name:<{width}}  ' + '  '.join(f'{counts[p][name]:5d}' for p in PARTS))
    return '\n'.join(lines + [f'note: {note}' for note in manifest['notes']])


def learn(
    sources: Sources,
    how: Division,
    recipe: Recipe,
    out: Path,
    methods: Sequence[str] = DEFAULT,
    pictures: int = 4,
    force: bool = False,
    check: bool = False,
) -> None:
    """The whole command; see the module and `prepare`."""
    start = time.perf_counter()
    manifest = prepare(sources, how, recipe, out, force, check)
    print(report(manifest), flush=True)
    if check:
        print('nothing is wrong with these data; nothing was written')
        return
    results = [run_method(method, out) for method in methods]
    table = write_table(results, manifest, out)
    made = draw_pictures(out, methods, manifest['parts']['test'], sources.images, pictures)
    print(f'\nOn {len(manifest["parts"]["test"])} held-out images:\n\n{table}\n')
    for path in made:
        print(f'picture: {path}')
    settings = manifest['settings']
    best = next((m for m in ('ssprompt', 'spm', *reversed(methods)) if m in methods), methods[0])
    prompt = out / best / spm.files_of(best)[0]
    if prompt.is_file():
        print(f'prompt file: {prompt} ({prompt.stat().st_size:,} bytes)\non new images:')
        how = f'--base {settings["base"]} --short-side {settings["short_side"]}'
        if is_config(settings['base']):
            how = f'--base {out}/configs/{best}.py'
        print(
            f'  python tools/predict.py IMAGE_OR_FOLDER {how} --prompts {prompt} '
            f'--out {out}/predictions'
        )
    print(f'{time.perf_counter() - start:.0f} s')


def _numbers(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(','))
    except ValueError as error:
        raise UserError(
            f'{name}: expected whole numbers separated by commas, found {text!r}.'
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='learn.py',
        description='Learn prompts for a frozen model from your own images and masks.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group('your data').add_argument
    add('--images', type=Path, required=True, metavar='DIR', help='folder of images')
    add('--masks', type=Path, metavar='DIR', help='folder of PNG masks of the same names')
    add('--coco', type=Path, metavar='JSON', help='COCO instances; or panoptic, PNGs in --masks')
    add('--classes', type=Path, required=True, metavar='FILE', help='classes.txt, see below')
    add('--mask-suffix', default='', help='_mask if the mask of photo.jpg is photo_mask.png')
    add('--ignore', help='values, colours that count for nothing: 255,0 or #000000 (255)')
    add('--rest', help="what unlisted values, pixels in no instance are: 'ignore' or a class")
    add('--palette', choices=('values', 'colours'), help='what decides in palette PNGs')
    add('--masks-drawn', choices=('viewed', 'stored'), help='for images turned by EXIF')
    add('--skip-unlabelled', action='store_true', help='leave images without a mask out')
    add = parser.add_argument_group('parts').add_argument
    add(
        '--split',
        default='random',
        help='random (default), in-order (stretches of a video), folders (train/ val/ test/ in '
        '--images), or a folder with train.txt, val.txt, test.txt',
    )
    add('--parts', default='60,10,30', help='per cent for train, val, test (default 60,10,30)')
    add('--group', metavar='REGEX', help="keep images together by name: '^[^_]+' for one clip")
    add('--shots', type=int, help='images per class to learn from (default: all training images)')
    add('--seed', type=int, default=0, help='of parts, shots and training (default 0)')
    add = parser.add_argument_group('learning').add_argument
    add('--base', required=True, help='SEEM: base file, checkpoint or mmprompt://NAME; SPM: config')
    add('--methods', nargs='+', choices=METHODS, metavar='NAME', help=', '.join(METHODS))
    add('--quick', action='store_true', help='zero-shot and ssprompt only, or spm only')
    add('--steps', type=int, help='training steps (default 200, SPM 400)')
    add('--lr', type=float, help='learning rate of AdamW (default 0.01, SPM 0.001)')
    add('--batch', type=int, default=4, help='images per step (default 4)')
    add(
        '--short-side',
        type=int,
        default=0,
        help="pixels of the shorter side in the network (default: the base's, 512 for public "
        'SEEM, no more than the images have)',
    )
    add('--workers', type=int, default=1, help='processes that read images (default 1)')
    add = parser.add_argument_group('results').add_argument
    add('--out', type=Path, required=True, metavar='DIR', help='folder for the results')
    add('--pictures', type=int, default=4, help='test images to draw (default 4)')
    add('--check', action='store_true', help='check data and words, train and write nothing')
    add('--force', action='store_true', help='start anew where --out holds another run')
    return parser


def _check_arguments(args: argparse.Namespace) -> tuple[int, ...]:
    """The shares of the parts; raises `UserError` for numbers that cannot be."""
    shares = _numbers(args.parts, '--parts')
    if len(shares) != 3 or sum(shares) != 100 or min(shares) < 0 or not (shares[0] and shares[2]):
        raise UserError(
            f'--parts: expected per cent for train, val and test that sum to 100, train and test '
            f'above 0, found {args.parts!r}. For example 60,10,30, or 60,0,40.'
        )
    least = dict(steps=1, batch=1, short_side=0, workers=0, pictures=0, shots=1, seed=0)
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            option = name.replace('_', '-')
            raise UserError(f'--{option}: expected a number from {bound} up, found {value}.')
    if 0 < args.short_side < 32:
        raise UserError(f'--short-side: expected at least 32 pixels, found {args.short_side}.')
    if args.lr is not None and not 0 < args.lr < float('inf'):
        raise UserError(f'--lr: expected a positive number, found {args.lr}.')
    if args.masks is None and args.coco is None:
        raise UserError('--masks or --coco: expected where masks are, found neither. Give one.')
    unused = [n for n in ('ignore', 'palette', 'mask_suffix') if args.coco and getattr(args, n)]
    if unused:
        raise UserError(
            f'--coco: expected no --{unused[0].replace("_", "-")}, which is about masks, found it. '
            f'Leave it out.'
        )
    if args.quick and args.methods:
        raise UserError('--quick and --methods: expected one of them, found both. Leave one out.')
    return shares


def _recipe(args: argparse.Namespace) -> tuple[Recipe, tuple[str, ...]]:
    """How to learn, and what; raises `UserError` for methods that the base cannot learn."""
    base, prompted = args.base, is_config(args.base)
    steps, lr, default, quick = STEPS, LR, DEFAULT, QUICK
    if prompted:
        steps, lr = spm.STEPS, spm.LR
        default, quick = tuple(spm.METHODS), ('spm',)
        base = resolve_config(base)
    if '://' not in args.base:
        base = str(Path(base).resolve())
    methods = quick if args.quick else tuple(dict.fromkeys(args.methods or default))
    wrong = [name for name in methods if name not in methods_of(base)]
    if wrong:
        raise UserError(
            f'--methods: expected some of {", ".join(methods_of(base))} for --base {args.base}, '
            f'found {", ".join(wrong)}. Leave them out, or give another base.'
        )
    recipe = Recipe(
        base, args.steps or steps, args.lr or lr, args.batch, args.short_side, args.seed,
        args.workers,
    )  # fmt: skip
    return recipe, methods


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    args = _parser().parse_args(argv)

    def body() -> None:
        shares = _check_arguments(args)
        ignore = None if args.ignore is None else tuple(args.ignore.split(','))
        sources = Sources(
            args.images, args.classes, args.masks, args.coco, args.mask_suffix, ignore, args.rest,
            args.palette, args.masks_drawn, args.skip_unlabelled,
        )  # fmt: skip
        recipe, methods = _recipe(args)
        learn(
            sources,
            Division(args.split, shares, args.group, args.shots),
            recipe,
            args.out,
            methods,
            args.pictures,
            args.force,
            args.check,
        )

    return run_command_line(body)
