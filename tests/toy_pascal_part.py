"""MATLAB files as Pascal-Part has them, of a few pixels."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

SIZE = (6, 8)


def structures(rows: list[dict]) -> np.ndarray:
    """(1, n) array of MATLAB structures, (0, 0) of none."""
    if not rows:
        return np.zeros((0, 0))
    found = np.zeros((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        found[0, i] = tuple(row.values())
    return found


def write_mat(path: Path, objects: list[tuple], size=SIZE) -> None:
    """Objects as (class, mask, [(name of part, mask), …]), as the files have them."""
    rows = [
        {
            'class': kind,
            'class_ind': 1,
            'mask': mask.astype(np.uint8),
            'parts': structures([dict(part_name=n, mask=m.astype(np.uint8)) for n, m in parts]),
        }
        for kind, mask, parts in objects
    ]
    anno = dict(imname=path.stem, objects=structures(rows))
    savemat(path, dict(anno=anno), do_compression=True)


def box(x1: int, y1: int, x2: int, y2: int, size=SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask
