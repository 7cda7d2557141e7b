"""``tools/patch_stats.py``: what the patches of a data set can become, before anyone trains."""

import argparse
import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.apis.images import read_picture
from mmprompt.apis.patches.curves import LABELS, check_suffix, write_curves
from mmprompt.apis.patches.floors import measure_floors
from mmprompt.apis.patches.images import SPLITS
from mmprompt.apis.patches.pictures import (
    Uncovered,
    draw_object,
    paint,
    spread,
    write_sheet,
)
from mmprompt.apis.patches.truth import PatchSplit, progress
from mmprompt.apis.task_table import aligned_table, number, task_table
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file, write_json
from mmprompt.evaluation.proposal_quality import (
    COCO_SIZES,
    COLUMNS,
    FINE_SIZES,
    PART_IOP,
    RULES,
    ObjectQuality,
    Overlaps,
    joined,
    object_quality,
    of_size,
    summary,
)

COVERED = 0.5  # IoU


@dataclass(frozen=True)
class SplitStats:
    """Patches of one split against its objects.

    Attributes:
        counts: (images,) patches.
        shares: (images,) share of the pixels that lie in any patch.
        quality: of all objects.
        places: (objects, 2) number of the image and row of its units.
        labels, boxes: (objects,) and (objects, 4) xyxy.
    """

    counts: np.ndarray
    shares: np.ndarray
    quality: ObjectQuality
    places: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    def uncovered(self) -> list[Uncovered]:
        """Objects that no single patch covers with an IoU above 0.5."""
        q = self.quality
        return [
            Uncovered(
                *self.places[i].tolist(),
                int(self.labels[i]),
                tuple(self.boxes[i].tolist()),
                int(q.areas[i]),
                *(float(column[i]) for column in (q.best, q.parts, q.greedy, q.covered)),
            )
            for i in np.flatnonzero(q.best <= COVERED)
        ]


def measure(
    split: PatchSplit, regions: bool = False, iop: float = PART_IOP, watch: Callable = iter
) -> SplitStats:
    """Measure all patches of a split.

    Args:
        split: the images.
        regions: measure the region of every class of an image in place of instances.
        iop: from which share on a patch is a part of an object it lies in.
        watch: wraps the iteration over the images, to show progress.
    """
    counts, shares, rows = [], [], []
    for i in watch(range(len(split))):
        image = split.read(i)
        wanted = (image.units.is_instance != regions) & (image.runs.areas() > 0)
        wanted = np.flatnonzero(wanted)
        objects = image.runs.select(wanted)
        overlaps = Overlaps(objects, image.patch_runs())
        counts.append(len(image.patches))
        shares.append(overlaps.patches.any(axis=0) @ overlaps.areas / overlaps.areas.sum())
        places = np.stack([np.full(len(wanted), i), wanted], axis=1)
        rows.append(
            (object_quality(overlaps, iop), places, image.units.labels[wanted], objects.boxes())
        )
    quality, *others = zip(*rows, strict=True)
    return SplitStats(
        np.array(counts), np.array(shares), joined(quality), *map(np.concatenate, others)
    )


def quality_table(quality: ObjectQuality) -> str:
    """Table 9: a row for each way to make an object of patches."""
    rows = []
    for rule in RULES:
        found = summary(getattr(quality, rule))
        rows.append([LABELS[rule], *(number(found[column]) for column in COLUMNS)])
    return aligned_table(['made of', *COLUMNS], rows)


def size_table(quality: ObjectQuality, sizes: Mapping[str, tuple[float, float]]) -> str:
    """Objects by size: how many, how much of them lies in patches, and what is missed."""
    heads = ['pixels', 'objects', '% in patches', *(f'mIoU {r}' for r in RULES)]
    rows = []
    for name, limits in sizes.items():
        part = of_size(quality, *limits)
        found = [summary(getattr(part, rule)) for rule in RULES]
        covered = 100 * float(part.covered.mean()) if len(part.areas) else None
        values = [covered, *(f['mIoU'] for f in found), *(f['MR_0.5'] for f in found)]
        rows.append([name, str(len(part.areas)), *map(number, values)])
    return aligned_table([*heads, *(f'MR_0.5 {r}' for r in RULES)], rows)


def describe(split: PatchSplit, stats: SplitStats, what: str) -> str:
    """All that is printed about the patches of a split."""
    counts, missed = stats.counts, stats.uncovered()
    total, mendable = len(stats.labels), sum(o.greedy > COVERED for o in missed)
    lines = [
        f'{split.split}: {len(counts)} images, {counts.sum():,} patches ({counts.mean():.1f} an '
        f'image, median {np.median(counts):.0f}, {counts.min()} to {counts.max()}); '
        f'{100 * stats.shares.mean():.1f} % of the pixels of an image lie in patches',
        f'\n{total} {what} (Table 9):\n\n{quality_table(stats.quality)}',
        f'\nby size:\n\n{size_table(stats.quality, COCO_SIZES)}',
        f'\n{size_table(stats.quality, FINE_SIZES)}',
        f'\n{len(missed)} of {total} {what} are covered by no single patch (IoU > {COVERED}); '
        f'merging can make {mendable} of them, {len(missed) - mendable} are lost',
    ]
    return '\n'.join(lines)


def record(stats: SplitStats, what: str) -> dict[str, Any]:
    """The same for a JSON file."""

    def rules(quality: ObjectQuality) -> dict:
        return {r: {k: _plain(v) for k, v in summary(getattr(quality, r)).items()} for r in RULES}

    sizes = {**COCO_SIZES, **FINE_SIZES}
    parts = {name: of_size(stats.quality, *limits) for name, limits in sizes.items()}
    return dict(
        images=len(stats.counts),
        patches=int(stats.counts.sum()),
        patches_per_image=dict(
            mean=float(stats.counts.mean()),
            median=float(np.median(stats.counts)),
            least=int(stats.counts.min()),
            most=int(stats.counts.max()),
        ),
        percent_of_pixels_in_patches=100 * float(stats.shares.mean()),
        measured=what,
        objects=len(stats.labels),
        quality=rules(stats.quality),
        by_size={n: dict(objects=len(p.areas), quality=rules(p)) for n, p in parts.items()},
        uncovered=len(stats.uncovered()),
    )


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)  # JSON knows no NaN


def write_uncovered(split: PatchSplit, stats: SplitStats, out: Path, pictures: int) -> list[Path]:
    """List the objects that no patch covers, and draw some: those merging can make, those lost.

    Returns:
        The files that were written.
    """
    missed = sorted(stats.uncovered(), key=lambda o: (o.image, -o.area))
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    heads = ['image', 'class', 'x1', 'y1', 'x2', 'y2', 'pixels', 'iou_best', 'iou_parts']
    writer.writerow([*heads, 'iou_greedy', 'share_in_patches'])
    for o in missed:
        values = [f'{v:.4f}' for v in (o.best, o.parts, o.greedy, o.covered)]
        name = split.name(split.path(o.image))
        writer.writerow([name, split.classes[o.label], *o.box, o.area, *values])
    files = [out / f'{split.split}_uncovered.csv']
    with atomic_file(files[0]) as stream:
        stream.write(text.getvalue().encode())
    kinds = dict(mergeable=lambda o: o.greedy > COVERED, missed=lambda o: o.greedy <= COVERED)
    for kind, fits in kinds.items():
        chosen = spread([o for o in missed if fits(o)], pictures)
        if chosen:
            files.append(out / f'{split.split}_{kind}.png')
            write_sheet([_picture(split, o) for o in chosen], files[-1])
    return files


def _picture(split: PatchSplit, o: Uncovered) -> Any:
    image = split.read(o.image)
    caption = (
        f'{split.classes[o.label]}, {o.box[2] - o.box[0]}x{o.box[3] - o.box[1]}: best {o.best:.2f},'
        f' union {o.parts:.2f}, greedy {o.greedy:.2f}'
    )
    true = paint(image.runs, o.unit)
    picture = Image.fromarray(read_picture(image.path))
    return draw_object(picture, true, image.patches, o.box, caption)


def report(
    split: PatchSplit, args: argparse.Namespace, out: Path | None
) -> tuple[dict[str, Any], ObjectQuality]:
    """Measure, print, write. Without any instance the regions of classes are measured.

    Returns:
        The `record` and the quality of all objects.

    Raises:
        UserError: no image has an object.
    """
    regions, iop = args.regions, args.part_iop
    stats = measure(split, regions, iop, progress)
    if not len(stats.labels) and not regions:
        regions, stats = True, measure(split, True, iop, progress)
    if not len(stats.labels):
        raise UserError(
            f'{split.split}: expected labelled objects in {len(split)} images, found none. Correct '
            f'the labels, or choose another split with --split.'
        )
    what = 'regions of classes' if regions else 'objects'
    print(describe(split, stats, what))
    if out is not None:
        for path in write_uncovered(split, stats, out, args.pictures):
            print(f'  {path}')
    print(flush=True)
    return record(stats, what), stats.quality


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='patch_stats.py',
        description='Measure the patches of a config against its labels before anyone trains: how '
        'many, how much they cover, how well they fit (Table 9), which objects no patch covers.',
    )
    parser.add_argument('config', help='config file, or its name below configs/')
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=['train', 'test'])
    parser.add_argument('--store', help='patch store in place of the one that the config names')
    parser.add_argument('--images', type=int, help='at most so many of a split, evenly chosen')
    parser.add_argument(
        '--regions', action='store_true', help='measure regions of classes in place of instances'
    )
    parser.add_argument(
        '--part-iop',
        type=float,
        default=PART_IOP,
        metavar='IOP',
        help=f'a patch that lies in an object by more is a part of it (default {PART_IOP})',
    )
    parser.add_argument(
        '--floors',
        action='store_true',
        help='what merging reaches at most in all three tasks, and what patches reach unmerged',
    )
    parser.add_argument('--out', metavar='DIR', help='folder for stats.json, lists and pictures')
    parser.add_argument(
        '--curves',
        type=Path,
        metavar='FILE',
        help='the missing rate over the IoU, by size: a picture (.png) or a table (.csv)',
    )
    parser.add_argument('--pictures', type=int, default=24, help='objects on a sheet (default 24)')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    args = parse(argv)

    def body() -> None:
        cfg = find_config(args.config)
        apply_options(cfg, args.cfg_options)
        if args.store and len(set(args.split)) > 1:
            raise UserError(
                f'--store {args.store}: expected one split, found {" and ".join(args.split)}. Say '
                f'whose patches they are: --split train'
            )
        if args.curves is not None:
            check_suffix(args.curves)
        out = Path(args.out) if args.out else None
        splits, floors, qualities = {}, {}, {}
        for name in dict.fromkeys(args.split):
            split = PatchSplit(cfg, name, args.store, args.images)
            splits[name], qualities[name] = report(split, args, out)
            if args.floors:
                found = measure_floors(split, cfg, progress)
                splits[name]['floors'] = {f: _finite(m) for f, m in found.items()}
                floors |= {f'{name}: {floor}': metrics for floor, metrics in found.items()}
        if floors:
            print(task_table(floors))
        if args.curves is not None:
            write_curves(qualities, args.curves)
            print(args.curves)
        if out is not None:
            write_json(out / 'stats.json', dict(config=args.config, splits=splits))

    return run_command_line(body)


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _plain(float(value)) for name, value in metrics.items()}
