"""Miniatures of public data sets: a few pixels in the official folders and file names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmseg.datasets import MapillaryDataset_v1
from PIL import Image

STREET_IDS = {**{i: i for i in range(19)}, 255: 255}
#: The two label tables as the code of Huang et al. 2021 and of Choi et al. 2021 gives them: id of
#: Vistas v1.2 -> train id of Cityscapes. What is missing is not evaluated.
HUANG = {
    7: 0, 8: 0, 10: 0, 13: 0, 14: 0, 23: 0, 24: 0, 2: 1, 9: 1, 11: 1, 15: 1, 17: 2, 6: 3, 3: 4,
    45: 5, 47: 5, 48: 6, 49: 7, 50: 7, 30: 8, 29: 9, 27: 10, 19: 11, 20: 12, 21: 12, 22: 12,
    55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
}  # fmt: skip
CHOI = {
    13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9,
    27: 10, 19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
}  # fmt: skip
VISTAS_IDS = {i: HUANG.get(i, 255) for i in range(len(MapillaryDataset_v1.METAINFO['classes']))}


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files, below the folder that `MMPROMPT_DATA` names.

    Args:
        root: the data set's folder.
        image, label: names below it, of a ``{split}`` and the ``{i}``-th file.
        splits: what training and validation are called.
        ids: value in a label file -> class after loading, 255 for none.
        listing: name of the list of images of a split, where there is one.
        instances: name of a file that tells things apart, where there is one.
    """

    root: str
    image: str
    label: str
    splits: tuple[str, str]
    ids: dict[int, int]
    listing: str | None = None
    instances: str | None = None


def _acdc(condition: str) -> Layout:
    file = f'{condition}/{{split}}/GOPR0475/GOPR0475_frame_{{i:06d}}'
    return Layout(
        'acdc',
        f'rgb_anon/{file}_rgb_anon.png',
        f'gt/{file}_gt_labelTrainIds.png',
        ('train', 'val'),
        STREET_IDS,
    )


def _vessels(root: str, name: str, ending: str) -> Layout:
    return Layout(
        root,
        f'images/{{split}}/{name}.png',
        f'annotations/{{split}}/{name}{ending}',
        ('training', 'validation'),
        {0: 0, 1: 1},
    )


LAYOUTS = {
    'cityscapes': Layout(
        'cityscapes',
        'leftImg8bit/{split}/bonn/bonn_{i:06d}_000019_leftImg8bit.png',
        'gtFine/{split}/bonn/bonn_{i:06d}_000019_gtFine_labelTrainIds.png',
        ('train', 'val'),
        STREET_IDS,
        instances='gtFine/{split}/bonn/bonn_{i:06d}_000019_gtFine_instanceIds.png',
    ),
    'bdd100k': Layout(
        'bdd100k',
        'images/10k/{split}/7d06fefd-f7be{i:04d}.jpg',
        'labels/sem_seg/masks/{split}/7d06fefd-f7be{i:04d}.png',
        ('train', 'val'),
        STREET_IDS,
    ),
    'mapillary': Layout(
        'mapillary',
        '{split}/images/_HVvsRYXfn{i:04d}.jpg',
        '{split}/v1.2/labels/_HVvsRYXfn{i:04d}.png',
        ('training', 'validation'),
        VISTAS_IDS,
    ),
    'ade20k': Layout(
        'ADEChallengeData2016',
        'images/{split}/ADE_x_{i:08d}.jpg',
        'annotations/{split}/ADE_x_{i:08d}.png',
        ('training', 'validation'),
        {0: 255, **{i: i - 1 for i in range(1, 151)}},
    ),
    'pascal-context': Layout(
        'VOCdevkit/VOC2010',
        # One folder for both splits, which their lists tell apart.
        'JPEGImages/{split}_{i:06d}.jpg',
        'SegmentationClassContext/{split}_{i:06d}.png',
        ('train', 'val'),
        {0: 255, **{i: i - 1 for i in range(1, 60)}},
        'ImageSets/SegmentationContext/{split}.txt',
    ),
    **{f'acdc-{c}': _acdc(c) for c in ('fog', 'night', 'rain', 'snow')},
    'vaihingen': Layout(
        'vaihingen',
        'img_dir/{split}/area1_{i}_0_512_512.png',
        'ann_dir/{split}/area1_{i}_0_512_512.png',
        ('train', 'val'),
        {0: 255, **{i: i - 1 for i in range(1, 7)}},
    ),
    'chase-db1': _vessels('CHASE_DB1', 'Image_{i:02d}L', '_1stHO.png'),
    'stare': _vessels('STARE', 'im{i:04d}', '.ah.png'),
    'hrf': _vessels('HRF', '{i:02d}_h', '.png'),
}
#: CHASE-DB1 as its archive unpacks, which names no split.
CHASE_NAMES = tuple(f'Image_{child:02d}{eye}' for child in range(1, 15) for eye in 'LR')


def find_layout(data_root: str, img_path: str) -> Layout | None:
    """The layout whose images lie in `data_root`/`img_path`; None if it is none of these."""
    for layout in LAYOUTS.values():
        names = [layout.image.format(split=split, i=0) for split in layout.splits]
        if f'/{data_root}'.endswith(f'/{layout.root}') and any(
            name.startswith(f'{img_path}/') for name in names
        ):
            return layout
    return None


def draw(ids: Sequence[int], size: tuple[int, int], seed: int, cell: int = 4) -> np.ndarray:
    """A label file's content (H, W) of square cells in which every value occurs where it fits."""
    rows, columns = -(-size[0] // cell), -(-size[1] // cell)
    random = np.random.default_rng(seed)
    values = np.resize(np.asarray(ids, np.uint8), rows * columns)
    cells = random.permutation(values).reshape(rows, columns)
    return cells.repeat(cell, 0).repeat(cell, 1)[: size[0], : size[1]]


def tell_apart(label: np.ndarray) -> np.ndarray:
    """Instance map of Cityscapes: the things of the left and of the right half are two."""
    label = label.astype(np.uint16)
    right = np.arange(label.shape[1]) >= label.shape[1] // 2
    return np.where((label >= 11) & (label < 19), label * 1000 + right, label).astype(np.uint16)


def write(
    data: Path, layout: Layout, sizes: Sequence[tuple[int, int]], cell: int = 4
) -> dict[str, list[np.ndarray]]:
    """Write a miniature below `data`, one image of each size (H, W) per split.

    Returns:
        split -> the label files' contents, in the order of their names.
    """
    written: dict[str, list[np.ndarray]] = {}
    root = data / layout.root
    for number, split in enumerate(layout.splits):
        names = []
        for i, size in enumerate(sizes):
            label = draw(list(layout.ids), size, seed=10 * number + i, cell=cell)
            image = np.stack([label, 255 - label, label // 2], -1)
            names.append(root / layout.image.format(split=split, i=i))
            files = [(image, names[-1]), (label, root / layout.label.format(split=split, i=i))]
            if layout.instances:
                path = root / layout.instances.format(split=split, i=i)
                files.append((tell_apart(label), path))
            for array, path in files:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
            written.setdefault(split, []).append(label)
        if layout.listing:
            listing = root / layout.listing.format(split=split)
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text(''.join(f'{name.stem}\n' for name in names))
    return written


def write_chase(
    folder: Path, size: tuple[int, int], images: str = 'images', manual: str = 'manual'
) -> np.ndarray:
    """Write CHASE-DB1's 28 images with the same vessels, the second observer's being the rest.

    The masks are of 1 bit, of 0 and 1, and of 0 and 255 in turn.

    Returns:
        (H, W) bool, where the first observer sees vessels.
    """
    vessels = draw([0, 1], size, seed=0).astype(bool)
    for part in (images, manual):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(CHASE_NAMES):
        Image.fromarray(np.full((*size, 3), n, np.uint8)).save(folder / images / f'{name}.jpg')
        mask = [vessels, vessels.astype(np.uint8), vessels.astype(np.uint8) * 255][n % 3]
        Image.fromarray(mask).save(folder / manual / f'{name}_1stHO.png')
        Image.fromarray(~vessels).save(folder / manual / f'{name}_2ndHO.png')
    return vessels
