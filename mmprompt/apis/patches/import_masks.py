"""``tools/import_patches.py``: masks that others have made -> a patch store; several merged."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.apis.patches.images import (
    SPLITS,
    forget_changed,
    images_of_config,
    images_of_folder,
)
from mmprompt.apis.patches.proposals import SOURCES, Source, named
from mmprompt.apis.patches.truth import progress
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.folder import shown
from mmprompt.datasets.yolo import image_size


def parse_sources(given: Sequence[str]) -> list[tuple[str, Source]]:
    """`['coco=masks.json', ...]` -> kinds and sources.

    Raises:
        UserError: a kind is unknown, or a source is not there.
    """
    found = []
    for text in given:
        kind, _, path = text.partition('=')
        if kind not in SOURCES or not path:
            raise UserError(
                f'--source {text}: expected KIND=PATH with one of the kinds {", ".join(SOURCES)}. '
                f'For example: --source coco=masks.json'
            )
        found.append((kind, SOURCES[kind](path)))
    return found


def union(sets: Sequence[PatchSet], dedupe: float | None = None) -> PatchSet:
    """The patches of several sets of one image, in their order.

    Args:
        sets: one or more, of equal size.
        dedupe: a patch is left out if its mask has a higher IoU with one that is kept already. The
            sets come one after the other, and those of a set by falling score. Empty masks are left
            out too. None keeps all.
    """
    joined = PatchSet.concat(sets)
    if dedupe is None or not len(joined):
        return joined
    rank = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
    order = np.lexsort((-joined.scores, rank))
    order = order[joined.areas[order] > 0]
    codes = joined.coco()
    codes = [codes[i] for i in order]
    too_near = coco_mask.iou(codes, codes, [0] * len(codes)) > dedupe if codes else np.zeros((0, 0))
    gone = np.zeros(len(order), bool)
    for i in range(len(order)):
        if not gone[i]:
            gone[i + 1 :] |= too_near[i, i + 1 :]
    return joined.select(np.sort(order[~gone]))


def import_patches(
    images: Sequence[Any],
    sources: Sequence[tuple[str, Source]],
    out: str | Path,
    dedupe: float | None = None,
    allow_missing: bool = False,
    watch: Callable = iter,
) -> str:
    """Write the store and return what to tell. A run that was killed goes on where it was.

    Args:
        images: with `key` and `path`.
        sources: kinds and sources; each image gets the patches of all that have it.
        out: the store.
        dedupe: see `union`.
        allow_missing: an image that no source has gets no patches, instead of an error.
        watch: wraps the iteration over the images, to show progress.

    Raises:
        UserError: a source cannot be used, or has no masks of an image.
    """
    settings = dict(sources=[dict(kind=k, **s.identity()) for k, s in sources], dedupe=dedupe)
    images, missing = named(images), []
    known, patches, before = [0] * len(sources), 0, 0
    with PatchStoreWriter(out, dict(generator='import', settings=settings)) as writer:
        changed = forget_changed(images, writer)
        for i in watch(range(len(images))):
            image = images[i]
            if image.key in writer:
                before += 1
                continue
            size = image_size(image.path)
            sets = [source.read(image, size) for _, source in sources]
            known = [n + (each is not None) for n, each in zip(known, sets)]
            sets = [each for each in sets if each is not None]
            if not sets:
                missing.append(image.key)
                if not allow_missing:
                    continue
                sets = [PatchSet.from_rles([], size)]
            found = union(sets, dedupe)
            patches += len(found)
            writer.add(image.key, found, image_digest(image.path))
        if missing and not allow_missing:
            raise UserError(
                f'{out}: expected masks of all {len(images)} images, found none of '
                f'{len(missing)}: {shown(missing)}. Files are looked for by the path below the '
                f'image folder, the name or the number of an image. Correct --source, or give '
                f'--allow-missing for images without patches; the others are kept in {out}.part.'
            )
        writer.finish()
    new = len(images) - before
    lines = [f'{out}: {new} images, {patches:,} patches ({patches / max(new, 1):.1f} an image)']
    notes = {
        f'{before} images were there already': before,
        f'{changed} images are others than before, and were made anew': changed,
        **{f'{k}={s.path}: {n} images': len(sources) > 1 for (k, s), n in zip(sources, known)},
        f'without patches ({len(missing)}): {shown(missing)}': missing,
    }
    return '\n'.join([*lines, *(f'  {text}' for text, told in notes.items() if told)])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    kinds = '\n'.join(f'  {name:<8} {source.about}' for name, source in SOURCES.items())
    parser = argparse.ArgumentParser(
        prog='import_patches.py',
        description='Put masks that others have made into a patch store, those of several sources '
        'together.\n\nkinds of sources:\n' + kinds,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', nargs='?', help='config that lists the images, or its name')
    parser.add_argument('--split', choices=SPLITS, default='train', help='of the config')
    parser.add_argument('--images', metavar='FOLDER', help='images, in place of a config')
    parser.add_argument('--source', nargs='+', required=True, metavar='KIND=PATH')
    parser.add_argument('--out', required=True, metavar='STORE', help='the file to write')
    parser.add_argument(
        '--dedupe',
        type=float,
        metavar='IOU',
        help='leave out a patch that overlaps one before it by a higher IoU; sources in their '
        'order, patches of a source by score',
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='images that no source has get no patches'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    args = parser.parse_args(argv)
    if (args.config is None) == (args.images is None):
        parser.error('give either a config or --images')
    if args.dedupe is not None and not 0 <= args.dedupe <= 1:
        parser.error(f'--dedupe: expected an IoU from 0 to 1, found {args.dedupe}')

    def body() -> None:
        sources = parse_sources(args.source)
        if args.images is not None:
            images = images_of_folder(args.images)
        else:
            cfg = find_config(args.config)
            apply_options(cfg, args.cfg_options)
            images = images_of_config(cfg, args.split)
        args_of_run = (args.out, args.dedupe, args.allow_missing, progress)
        print(import_patches(images, sources, *args_of_run))

    return run_command_line(body)
