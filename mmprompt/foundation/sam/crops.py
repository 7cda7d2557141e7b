"""Parts of an image that SAM looks at beside the whole image.

Notation: (H, W) pixels of the image; a view is (x1, y1, x2, y2) in whole pixels, x2 and y2
behind the last one.
"""

import math

View = tuple[int, int, int, int]
#: Ways to crop: not at all, squares along the long side, SAM's own grid of one layer.
CROPS = ('none', 'long-side', 'grid')
#: Neighbours in SAM's grid overlap by this share of the short side.
GRID_OVERLAP = 512 / 1500


def views(size: tuple[int, int], crops: str = 'long-side', wide: float = 2.0) -> list[View]:
    """The whole image and its crops.

    Args:
        size: (H, W).
        crops: one of `CROPS`. 'long-side' (the paper's appendix on Cityscapes): an image at least
            `wide` times as long as it is short also gives squares of its short side, at every half
            of that side: of 2048 x 1024 pixels at x = 0, 512 and 1024. 'grid' (the research code's
            `crop_n_layers=1`): 2 x 2 overlapping crops of every image.
        wide: the ratio of long to short side from which 'long-side' crops.
    """
    if crops not in CROPS:
        raise ValueError(f'crops are one of {", ".join(CROPS)}, not {crops!r}')
    height, width = size
    found = [(0, 0, width, height)]
    if crops == 'grid':
        found += _grid(height, width)
    elif crops == 'long-side' and max(size) >= wide * min(size):
        short = min(size)
        for start in _starts(max(size), short):
            end = start + short
            found.append((start, 0, end, short) if width > height else (0, start, short, end))
    return found


def _starts(long: int, short: int) -> list[int]:
    """Evenly spread, the first and the last at the ends, at most half a square apart."""
    steps = math.ceil((long - short) / (short / 2))
    return [round(i * (long - short) / steps) for i in range(steps + 1)] if steps else [0]


def _grid(height: int, width: int) -> list[View]:
    overlap = int(GRID_OVERLAP * min(height, width))
    h, w = (math.ceil((overlap + side) / 2) for side in (height, width))
    return [
        (x, y, min(x + w, width), min(y + h, height))
        for x in (0, w - overlap)
        for y in (0, h - overlap)
    ]
