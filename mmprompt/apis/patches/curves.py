"""The missing rate of Table 9 as a curve over the IoU, for ``tools/patch_stats.py --curves``."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mmprompt.apis.csv_rows import write_csv
from mmprompt.apis.figures import plt, save_figure
from mmprompt.common.errors import UserError
from mmprompt.evaluation.proposal_quality import COCO_SIZES, RULES, ObjectQuality, of_size

LABELS = dict(best='best patch', parts='union of parts', greedy='greedy union')
THRESHOLDS = np.arange(101) / 100
EVERY_SIZE = 'all'
SIZES = {EVERY_SIZE: (0, np.inf), **COCO_SIZES}
HEADS = ('split', 'size', 'objects', 'made of', 'IoU', 'missing rate')
#: By pixels of an object's mask.
_TITLES = dict(
    all='all objects', small='small, < 32² pixels', medium='medium, < 96²', large='large, ≥ 96²'
)
_LINES = dict(best=('C0', '-'), parts=('C1', '--'), greedy=('C2', ':'))


def missing_rates(ious: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """MR_x (T,) of each threshold x in percent: the share of objects without an IoU above it.

    Args:
        ious: (K,) of each object with what was made for it.
        thresholds: (T,).

    Returns:
        NaN over no objects.
    """
    if not len(ious):
        return np.full(len(thresholds), np.nan)
    return 100 * np.searchsorted(np.sort(ious), thresholds, side='right') / len(ious)


def curves(quality: ObjectQuality) -> Iterator[tuple[str, int, str, np.ndarray]]:
    """(size, objects, rule, MR (101,)) of every size that has objects, and every rule."""
    for size, limits in SIZES.items():
        part = of_size(quality, *limits)
        for rule in RULES if len(part.areas) else ():
            yield size, len(part.areas), rule, missing_rates(getattr(part, rule))


def write_curves(splits: Mapping[str, ObjectQuality], path: Path) -> None:
    """Write the curves of splits, by size and by what objects are made of.

    Args:
        splits: their objects by name.
        path: a picture, one row per split and one panel per size; or, if it ends in ``.csv``, a
            table with `HEADS`.
    """
    check_suffix(path)
    if path.suffix == '.csv':
        write_csv(path, HEADS, list(_rows(splits)))
    else:
        _draw(splits, path)


def check_suffix(path: Path) -> None:
    """Refuse what is neither a picture nor a table, before anything is measured.

    Raises:
        UserError: it has another ending.
    """
    if path.suffix not in ('.png', '.csv'):
        raise UserError(
            f'--curves {path}: expected a file that ends in .png or .csv, found '
            f'{path.suffix or "no ending"}. Correct the name.'
        )


def _rows(splits: Mapping[str, ObjectQuality]) -> Iterator[dict[str, str]]:
    for split, quality in splits.items():
        for size, objects, rule, rates in curves(quality):
            for threshold, rate in zip(THRESHOLDS, rates):
                values = (split, size, objects, LABELS[rule], f'{threshold:.2f}', f'{rate:.3f}')
                yield dict(zip(HEADS, map(str, values), strict=True))


def _draw(splits: Mapping[str, ObjectQuality], path: Path) -> None:
    figure, panels = plt.subplots(
        len(splits),
        len(SIZES),
        figsize=(3.1 * len(SIZES), 2.9 * len(splits)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    for row, (split, quality) in zip(panels, splits.items()):
        lines = {size: (number, {}) for size, number, _, _ in curves(quality)}
        for size, _, rule, rates in curves(quality):
            lines[size][1][rule] = rates
        for axes, size in zip(row, SIZES):
            number, found = lines.get(size, (0, {}))
            for rule, rates in found.items():
                colour, dash = _LINES[rule]
                axes.plot(THRESHOLDS, rates, dash, color=colour, label=LABELS[rule])
            axes.set_title(f'{_TITLES[size]} ({number})', fontsize=9)
            axes.grid(alpha=0.3)
            axes.set(xlim=(0, 1), ylim=(0, 100))
        row[0].set_ylabel(f'{split}: missing rate, %')
    for axes in panels[-1]:
        axes.set_xlabel('IoU')
    panels[0][0].legend(fontsize=8)
    save_figure(figure, path)
