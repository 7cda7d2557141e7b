"""Pictures of results: scenes beside their segmentations, and what each prompt has learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

#: Of level lines, one after the other; told apart in print without colour too.
_DASHES = ('--', ':', '-.', (0, (8, 2, 1, 2, 1, 2)))


def colour_labels(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Paint a label map.

    Args:
        labels: (H, W) class indices; an index outside the palette (ignored pixels) is left black.
        palette: one RGB triple per class.

    Returns:
        (H, W, 3) uint8.
    """
    table = np.zeros((len(palette) + 1, 3), np.uint8)
    table[:-1] = np.asarray(palette, np.uint8)
    labels = labels.astype(np.int64)
    inside = (labels >= 0) & (labels < len(palette))
    return table[np.where(inside, labels, len(palette))]


def shrink(columns: Mapping[str, np.ndarray], widest: int) -> dict[str, np.ndarray]:
    """Pictures of the size of the first, made smaller where its longer side has more pixels.

    Args:
        columns: RGB pictures (H, W, 3) by title.
        widest: pixels that the longer side may have.
    """
    height, width = next(iter(columns.values())).shape[:2]
    scale = min(1, widest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return {
        title: np.asarray(Image.fromarray(column).resize(size, Image.Resampling.NEAREST))
        for title, column in columns.items()
    }


def save_figure(figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.part.png')
    figure.savefig(temporary, dpi=120, bbox_inches='tight')
    plt.close(figure)
    temporary.replace(path)


def draw_scenes(scenes: Sequence[Mapping[str, np.ndarray]], path: str | Path) -> None:
    """One row per scene, one column per key, titles from the keys of the first scene.

    Args:
        scenes: each maps a column title to an RGB picture (H, W, 3).
        path: the PNG to write.
    """
    titles = list(scenes[0])
    height, width = scenes[0][titles[0]].shape[:2]
    size = (3.2 * len(titles), 3.2 * height / width * len(scenes) + 0.3)
    figure, axes = plt.subplots(len(scenes), len(titles), figsize=size, squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        for axis, title in zip(row, titles, strict=True):
            axis.imshow(scene[title])
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    figure.subplots_adjust(wspace=0.02, hspace=0.02)
    save_figure(figure, path)


def draw_weights(
    classes: Sequence[str],
    weights: np.ndarray,
    path: str | Path,
    counts: Sequence[float] | None = None,
) -> None:
    """The learned weight w of each class, around the 0.5 at which it started.

    Args:
        classes: C names.
        weights: (C,) in [0, 1]; w multiplies the learned embedding and 1 - w the default one, that
            of the class name (SSPrompt, Eq. 6).
        path: the PNG to write.
        counts: (C,) how often each name is found somewhere, such as in the text that the text
            encoder was trained on; drawn below on a logarithmic axis, classes in falling order.
    """
    place = np.arange(len(classes))
    rows = 1 if counts is None else 2
    size = (0.42 * len(classes) + 1.5, 3 * rows)
    figure, axes = plt.subplots(rows, 1, figsize=size, squeeze=False, sharex=True)
    axis = axes[0, 0]
    if counts is not None:
        order = np.argsort(-np.asarray(counts, float), kind='stable')
        classes = [classes[i] for i in order]
        weights, counts = np.asarray(weights)[order], np.asarray(counts, float)[order]
        axes[1, 0].bar(place, counts, color='#c08552')
        axes[1, 0].set_yscale('symlog', linthresh=1)
        axes[1, 0].set_ylim(bottom=0)
        axes[1, 0].set_ylabel('count of the class name')
    axis.axhline(0.5, color='#999999', linewidth=1)
    axis.vlines(place, 0.5, weights, color='#2a6f97')
    axis.plot(place, weights, 'o', color='#2a6f97')
    reach = max(0.02, 1.15 * float(np.abs(weights - 0.5).max()))
    axis.set_ylim(0.5 - reach, 0.5 + reach)
    axes[-1, 0].set_xticks(place, classes, rotation=45, ha='right')
    axis.set_ylabel('w, share of the learned')
    other = axis.twinx()
    other.set_ylim(0.5 + reach, 0.5 - reach)
    other.set_ylabel('1 - w, of the default')
    save_figure(figure, path)


def draw_curve(
    lines: Mapping[str, Mapping[int, Sequence[float]]], metric: str, path: str | Path
) -> None:
    """A metric over the number of images per class, mean and standard deviation over the runs.

    Args:
        lines: of each method the values of its runs by number of shots. One that has none but
            shot 0, as the zero-shot model does, is a level line.
        metric: its name, with the unit.
        path: the PNG to write.
    """
    figure, axis = plt.subplots(figsize=(5.2, 3.6))
    shots, levels = sorted({k for values in lines.values() for k in values if k > 0}), 0
    for number, (name, values) in enumerate(lines.items()):
        colour = f'C{number % 10}'
        if set(values) == {0}:
            style, levels = _DASHES[levels % len(_DASHES)], levels + 1
            axis.axhline(np.mean(values[0]), color=colour, linestyle=style, label=name)
            continue
        places = sorted(k for k in values if k > 0)
        means = [np.mean(values[k]) for k in places]
        spread = [np.std(values[k], ddof=1) if len(values[k]) > 1 else 0.0 for k in places]
        axis.errorbar(places, means, spread, color=colour, marker='o', capsize=3, label=name)
    axis.set_xticks(shots, shots)
    axis.set_xlabel('images per class')
    axis.set_ylabel(metric)
    axis.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)
