"""Pictures of results: scenes beside their segmentations, and what each prompt has learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)


def colour_labels(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Paint a label map.

    Args:
        labels: (H, W) class indices; an index outside the palette (ignored pixels) is left black.
        palette: one RGB triple per class.

    Returns:
        (H, W, 3) uint8.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8)
    return table[labels.astype(np.uint8)]


def _save(figure, path: str | Path) -> None:
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
    _save(figure, path)


def draw_weights(classes: Sequence[str], weights: np.ndarray, path: str | Path) -> None:
    """The learned weight w of each class, around the 0.5 at which it started.

    Args:
        classes: C names.
        weights: (C,) in [0, 1]; w multiplies the learned embedding and 1 - w the default one
            (SSPrompt, Eq. 6).
        path: the PNG to write.
    """
    figure, axis = plt.subplots(figsize=(0.42 * len(classes) + 1.5, 3))
    place = np.arange(len(classes))
    axis.axhline(0.5, color='#999999', linewidth=1)
    axis.vlines(place, 0.5, weights, color='#2a6f97')
    axis.plot(place, weights, 'o', color='#2a6f97')
    reach = max(0.02, 1.15 * float(np.abs(weights - 0.5).max()))
    axis.set_ylim(0.5 - reach, 0.5 + reach)
    axis.set_xticks(place, classes, rotation=45, ha='right')
    axis.set_ylabel('w, share of the learned')
    other = axis.twinx()
    other.set_ylim(0.5 + reach, 0.5 - reach)
    other.set_ylabel('1 - w, of the default')
    _save(figure, path)
