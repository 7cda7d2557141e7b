"""What the SPM paper reports in Tables 2 to 9. None of it was measured here.

"Prompt-Matched Semantic Segmentation". mIoU, and Dice of the vessels, in per cent.
"""

from typing import NamedTuple


class SPMFigure(NamedTuple):
    """One number of the paper.

    Attributes:
        table: its number there.
        backbone: and what it was pre-trained on.
        data: the data set.
        row: a way of tuning (`mmprompt.methods.spm.backbone`), places, or what was left out.
        metric: 'mIoU' or 'Dice'.
        value: the number.
    """

    table: str
    backbone: str
    data: str
    row: str
    metric: str
    value: float


IMAGENET, COCO = 'ResNet-101, ImageNet', 'ResNet-101, COCO-Stuff'
_WAYS = ('full', 'scratch', 'head', 'spm')
#: Table, backbone, data set, metric, and numbers by row.
_TABLES = (
    ('2', IMAGENET, 'ADE20K', 'mIoU', dict(zip(_WAYS, (43.96, 34.84, 34.08, 40.01)))),
    ('3', IMAGENET, 'Vaihingen', 'mIoU', dict(zip(_WAYS, (73.96, 68.85, 62.45, 72.17)))),
    ('4', IMAGENET, 'CHASE-DB1', 'Dice', dict(zip(_WAYS, (79.94, 79.80, 68.24, 79.57)))),
    ('4', IMAGENET, 'STARE', 'Dice', dict(zip(_WAYS, (80.74, 80.89, 63.94, 80.49)))),
    ('4', IMAGENET, 'HRF', 'Dice', dict(zip(_WAYS, (80.75, 80.73, 77.12, 80.40)))),
    ('5', COCO, 'ADE20K', 'mIoU', dict(zip(_WAYS, (43.47, 34.84, 40.21, 42.11)))),
    (
        '6',
        IMAGENET,
        'ADE20K',
        'mIoU',
        {
            '1': 34.43,
            '1-2': 35.11,
            '1-3': 36.39,
            '1-4': 38.54,
            '1-5': 40.01,
            '1-5 (+1)': 41.23,
            '1-5 (+2)': 41.32,
        },
    ),
    (
        '6',
        COCO,
        'ADE20K',
        'mIoU',
        {'1': 40.89, '1-2': 41.74, '1-3': 42.11, '1-4': 41.74, '1-5': 42.10},
    ),
    ('7', IMAGENET, 'ADE20K', 'mIoU', {'interim_weights=0': 38.08, 'conv3x3': 39.25, 'spm': 40.01}),
    ('7', COCO, 'ADE20K', 'mIoU', {'interim_weights=0': 41.10, 'conv3x3': 41.66, 'spm': 42.11}),
    (
        '8',
        'ResNet-50, ImageNet',
        'ADE20K',
        'mIoU',
        dict(zip(_WAYS, (41.19, 32.83, 33.26, 37.64))),
    ),
    (
        '9',
        'ViT-L, ImageNet',
        'ADE20K',
        'mIoU',
        {'full': 47.53, 'head': 37.77, '1 stage': 42.23, '2 stages': 42.71, '3 stages': 43.03},
    ),
)
SPM_FIGURES = tuple(
    SPMFigure(table, backbone, data, row, metric, value)
    for table, backbone, data, metric, rows in _TABLES
    for row, value in rows.items()
)


def spm_figures(table: str, data: str, backbone: str = IMAGENET) -> dict[str, float]:
    """Numbers by row of one column of a table; none if the paper has no such column."""
    wanted = (table, data, backbone)
    return {f.row: f.value for f in SPM_FIGURES if (f.table, f.data, f.backbone) == wanted}
