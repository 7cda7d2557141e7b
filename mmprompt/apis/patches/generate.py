"""``tools/generate_patches.py``: the patches of a dataset, into a store."""

import argparse
import inspect
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

import mmprompt  # noqa: F401  (registers the generators and what a config names)
from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.apis.images import read_picture
from mmprompt.apis.patches.images import (
    SPLITS,
    Picture,
    forget_changed,
    images_of_config,
    images_of_folder,
)
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_merge import merge_stores
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from mmprompt.common.processes import by_torchrun, is_first
from mmprompt.foundation.patch_generators import GENERATORS, PatchGenerator
from mmprompt.registry import MODELS

SUFFIX = '.db'
#: Options that are arguments of a generator.
_OF_GENERATOR = (
    'weights', 'points_per_side', 'batch', 'crops', 'denser', 'dtype', 'side', 'scales', 'device',
)  # fmt: skip
#: Seconds between two lines about the progress.
EVERY = 5.0
_SHARD = re.compile(r'([1-9]\d*)/([1-9]\d*)')
Shard = tuple[int, int]  # (i, n), i from 1
DESCRIPTION = """\
Make patches of every image that a config (or a folder) lists, and keep them in one file. A run that
was killed goes on with the same command; what it had finished is kept, image by image.
"""
EPILOG = """\
examples:
  python tools/generate_patches.py CONFIG --generator mobile-sam --split train
  python tools/generate_patches.py --images FOLDER --generator felzenszwalb --out patches.db
  torchrun --nproc_per_node 8 tools/generate_patches.py CONFIG --generator sam --split train
several hosts, or processes started by hand, each its share, then one file of all:
  python tools/generate_patches.py CONFIG --generator sam --split train --shard 1/2
  python tools/generate_patches.py CONFIG --generator sam --split train --shard 2/2
  python tools/generate_patches.py --merge data/patches/NAME_train_sam.db
"""


def _config_of(spec: str | dict) -> dict[str, Any]:
    return dict(spec) if isinstance(spec, dict) else dict(type=GENERATORS.get(spec, spec))


def _generator_class(spec: str | dict) -> type[PatchGenerator]:
    name = _config_of(spec)['type']
    kind = MODELS.get(name)
    if not (inspect.isclass(kind) and issubclass(kind, PatchGenerator)):
        raise UserError(
            f'--generator {name}: expected {", ".join(GENERATORS)}, or the name of a registered '
            f'PatchGenerator, found none. Choose one.'
        )
    return kind


def build_generator(spec: str | dict, options: dict[str, Any]) -> PatchGenerator:
    """Build a generator.

    Args:
        spec: a short name of `GENERATORS`, the name of a registered class, or a config with `type`.
        options: arguments that are put over it.

    Raises:
        UserError: there is no such generator, or it does not take one of the arguments.
    """
    config, kind = _config_of(spec), _generator_class(spec)
    parameters = inspect.signature(kind).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in parameters and not takes_all:
            raise UserError(
                f'--{name.replace("_", "-")}: {config["type"]} takes no {name}, but '
                f'{", ".join(parameters)}. Leave it out.'
            )
    return MODELS.build({**config, **options})


def shard_path(out: Path, shard: Shard) -> Path:
    """`x.db` and (1, 4) -> `x.1-of-4.db`."""
    return out.with_name(f'{out.stem}.{shard[0]}-of-{shard[1]}{out.suffix}')


def shard_paths(out: Path) -> list[Path]:
    """All files of the shards of a store, if all have been finished; else none.

    Raises:
        UserError: there are shards of two divisions.
    """
    pattern = re.compile(rf'{re.escape(out.stem)}\.(\d+)-of-(\d+){re.escape(out.suffix)}')
    found = [m for p in out.parent.glob('*') if (m := pattern.fullmatch(p.name))]
    numbers = {int(m[2]) for m in found}
    if len(numbers) > 1:
        raise UserError(
            f'{out}: expected shards of one division beside it, found those of '
            f'{" and ".join(map(str, sorted(numbers)))}. Remove the wrong ones.'
        )
    total = numbers.pop() if numbers else 0
    paths = [shard_path(out, (i, total)) for i in range(1, total + 1)]
    done = all(p.is_file() and not p.with_name(f'{p.name}.part').exists() for p in paths)
    return paths if done else []


def merge_shards(out: Path) -> int:
    """Put all shards into `out`, and remove them; returns the number of images.

    Raises:
        UserError: a shard is missing or unfinished, or they do not go together.
    """
    paths = shard_paths(out)
    if not paths:
        raise UserError(
            f'{out}: expected all shards beside it ({shard_path(out, (1, 2)).name} and so on), '
            f'found some missing or unfinished. Run the commands that make them.'
        )
    number = len(PatchStore(merge_stores(paths, out)))
    for path in paths:
        path.unlink(missing_ok=True)
    return number


class Progress:
    """A line every few seconds: how far, how fast, how long still."""

    def __init__(self, total: int, done: int, quiet: bool = False) -> None:
        self.total, self.done, self.quiet = total, done, quiet
        self.started = self.shown = time.monotonic()
        self.new = self.patches = 0

    def step(self, patches: int) -> None:
        """One more image with so many patches."""
        self.done, self.new, self.patches = self.done + 1, self.new + 1, self.patches + patches
        now = time.monotonic()
        if self.quiet or now - self.shown < EVERY:
            return
        self.shown = now
        left = (self.total - self.done) * (now - self.started) / self.new
        line = f'  {self.done} of {self.total} images, {self.rate()}, {_time(left)} left'
        print(line, file=sys.stderr, flush=True)

    def rate(self) -> str:
        """Seconds and patches of an image."""
        seconds = (time.monotonic() - self.started) / max(self.new, 1)
        return f'{seconds:.2f} s and {self.patches / max(self.new, 1):.0f} patches per image'


def _time(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


class Made(NamedTuple):
    """What `generate` did: into which file, of how many images, new and changed ones of these."""

    out: Path
    images: int
    new: int
    changed: int
    rate: str

    def __str__(self) -> str:
        changed = f', {self.changed} because the image is another now' if self.changed else ''
        return f'{self.out}: {self.images} images, {self.new} of them new{changed} ({self.rate})'


def generate(
    images: Sequence[Picture],
    generator: PatchGenerator,
    whole: Path,
    shard: Shard | None = None,
    quiet: bool = False,
) -> Made:
    """Make the patches of images and write them, one transaction each; go on where a run ended.

    Args:
        images: with their keys.
        generator: see `PatchGenerator`.
        whole: the store.
        shard: the share of the images that is made, into a file of its own; if `whole` is there
            already the store is looked through instead.
        quiet: show no progress.

    Raises:
        UserError: images cannot be read (the others are done first), or the store is another.
    """
    meta = dict(generator=generator.name, settings=generator.settings())  # may read weights
    images, writer = _open(images, whole, meta, shard)
    with writer:
        todo = [image for image in images if image.key not in writer]
        if writer.finished and todo:
            raise UserError(
                f'{whole}: expected patches of all {len(images)} images, found a finished store '
                f'that lacks {len(todo)}, among them {todo[0].key}. Move it away, or name another '
                f'--out.'
            )
        out = writer.path
        changed = forget_changed(images, writer, alone=shard is None or out != whole)
        todo = [image for image in images if image.key not in writer]
        progress, bad = Progress(len(images), len(images) - len(todo), quiet), []
        for image in todo:
            try:
                pixels = read_picture(image.path)
            except UserError as error:
                bad.append(error)
                continue
            patches = generator(pixels)
            writer.add(image.key, patches, image_digest(image.path))
            progress.step(len(patches))
        if bad:
            more = f' And {len(bad) - 1} more.' if len(bad) > 1 else ''
            raise UserError(
                f'{bad[0]}{more} The patches of the other {len(images) - len(bad)} images are '
                f'kept: mend this and run the same command again.'
            ) from bad[0]
        writer.finish()
    return Made(out, len(images), len(todo), changed, progress.rate())


def _open(
    images: Sequence[Picture], whole: Path, meta: dict[str, Any], shard: Shard | None
) -> tuple[Sequence[Picture], PatchStoreWriter]:
    """The images of this process, and where their patches go."""
    if shard and not whole.exists():
        writer = PatchStoreWriter(shard_path(whole, shard), meta)
        # Others may have merged all shards a moment ago. They remove them when the whole is there,
        # so if this one was begun anew, the whole is seen now.
        if not whole.exists():
            return images[shard[0] - 1 :: shard[1]], writer
        begun = len(writer) > 0
        writer.close()
        if not begun:
            writer.part.unlink(missing_ok=True)
    return images, PatchStoreWriter(whole, meta)


def _shard(text: str | None) -> Shard | None:
    """The share of this process: as given, or its place among those of torchrun."""
    if text is None:
        number = int(os.environ['WORLD_SIZE']) if by_torchrun() else 1
        return (int(os.environ['RANK']) + 1, number) if number > 1 else None
    found = _SHARD.fullmatch(text)
    if not found or int(found[1]) > int(found[2]):
        raise UserError(
            f'--shard: expected i/n with i from 1 to n, as 2/4 for the second of four, found '
            f'{text!r}. Correct it.'
        )
    if by_torchrun() and int(os.environ['WORLD_SIZE']) > 1:
        raise UserError('--shard: torchrun shards by itself. Leave --shard out, or torchrun.')
    return int(found[1]), int(found[2])


def _default_out(args: argparse.Namespace, name: str) -> Path:
    source = Path(args.config or args.images)
    parts = [source.stem if args.config else source.resolve().name]
    parts += [args.split] if args.config else []
    return Path('data/patches') / f'{"_".join([*parts, name])}{SUFFIX}'


def _spec(args: argparse.Namespace, cfg: Config | None) -> str | dict:
    if args.generator:
        return args.generator
    node = cfg.get('patch_generator') if cfg is not None else None
    if not isinstance(node, dict):
        raise UserError(
            f'{args.config or args.images}: expected --generator, one of {", ".join(GENERATORS)}, '
            f'or patch_generator in the config, found neither. Add one.'
        )
    return dict(node)


def _run(args: argparse.Namespace) -> None:
    cfg = None
    if args.config:
        cfg = find_config(args.config)
        apply_options(cfg, args.cfg_options)
    options = {n: v for n in _OF_GENERATOR if (v := getattr(args, n)) is not None}
    options |= args.options or {}
    spec = _spec(args, cfg)
    if torch.cuda.is_available() and 'LOCAL_RANK' in os.environ and 'device' not in options:
        if 'device' in inspect.signature(_generator_class(spec)).parameters:
            place = int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()
            options['device'] = f'cuda:{place}'
    generator = build_generator(spec, options)
    shard, first = _shard(args.shard), is_first()
    whole = Path(args.out or _default_out(args, generator.name))
    images = images_of_config(cfg, args.split) if cfg else images_of_folder(args.images)
    made = generate(images, generator, whole, shard, quiet=not first)
    print(made)
    if made.out != whole and shard_paths(whole):
        try:
            print(f'{whole}: {merge_shards(whole)} images of {shard[1]} shards')
        except UserError as error:  # another process that was ready at the same time is at it
            print(f'{whole}: not merged here: {error}', file=sys.stderr)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='generate_patches.py',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', nargs='?', help='config file, or its name below configs/')
    add('--images', metavar='FOLDER', help='a folder of images instead of a config')
    add('--generator', metavar='NAME', help=f'{", ".join(GENERATORS)}, or a registered class')
    add('--split', choices=SPLITS, default='train', help='of the config (default: train)')
    add('--out', metavar='STORE', help='file to write (default: below data/patches)')
    add('--shard', metavar='i/n', help='only the i-th of n shares of the images, into its own file')
    add('--merge', metavar='STORE', help='only put the finished shards of STORE into one file')
    add('--weights', help='a file (mobile-sam), or a name or a folder of transformers (sam, sam2)')
    add('--points-per-side', type=int, help='of the grid of points (default: 48)')
    add('--points-per-batch', type=int, dest='batch', help='decoded at once (256; 4 on a CPU)')
    add('--crops', help='long-side (of wide images; default), grid (2 x 2) or none')
    add('--denser', type=int, help='rounds of denser points where patches are small or missing')
    add('--side', type=int, help='of the square that MobileSAM sees (default: 1024)')
    add('--dtype', help='float32 (default) or bfloat16')
    add('--scales', type=float, nargs='+', help='of felzenszwalb')
    add('--device', help='of the model (default: a GPU if there is one)')
    add('--options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='more arguments')
    add('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    args = parser.parse_args(argv)
    if sum(map(bool, (args.config, args.images, args.merge))) != 1:
        parser.error('give a config, or --images FOLDER, or --merge STORE')
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    args = parse(argv)

    def body() -> None:
        if args.merge:
            print(f'{args.merge}: {merge_shards(Path(args.merge))} images')
        else:
            _run(args)

    return run_command_line(body)
