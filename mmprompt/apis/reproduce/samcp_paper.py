"""What the SAM-CP paper reports in Tables 1 to 15. None of it was measured here.

"SAM-CP: Marrying SAM with Composable Prompts for Versatile Segmentation". In per cent; of Table 11
also seconds per image. Of Tables 1 and 2 only the rows of SAM-CP.
"""

from typing import NamedTuple

COCO, ADE20K, PASCAL_PART = 'COCO', 'ADE20K', 'Pascal-Part'
TO_ADE20K, TO_COCO, TO_CITYSCAPES = 'COCO to ADE20K', 'ADE20K to COCO', 'COCO to Cityscapes'


class SAMCPFigure(NamedTuple):
    """One number of the paper.

    Attributes:
        table: its number there.
        data: trained on, and measured on where that is other data.
        row: a row of `samcp_rows`, or what the paper calls it if it has none here.
        metric: as `mmprompt.apis.reproduce.samcp_cells.METRICS` call it.
        value: the number.
    """

    table: str
    data: str
    row: str
    metric: str
    value: float


_FOUR = ('PQ', 'AP_det', 'AP', 'mIoU')
_OPEN = ('PQ', 'SQ', 'RQ', 'AP', 'mIoU')
PROPOSALS = ('object_IoU', 'object_IoU>0.5', 'MR_0.25', 'MR_0.5', 'MR_0.75')
#: Table 11: seconds per image.
MAKING, REST, TOTAL = 'patches (s)', 'the rest (s)', 'total (s)'
_ALL, _ALL_OPEN = (47.0, 45.8, 41.4, 54.2), (27.2, 77.7, 32.9, 17.0, 31.8)
_36E, _SWIN = (48.6, 46.1, 41.7, 55.6), (52.7, 50.4, 45.2, 61.8)
#: Table, data, metrics, and numbers by row.
_TABLES = (
    ('1', TO_ADE20K, _OPEN, {'all': _ALL_OPEN}),
    ('1', TO_COCO, _OPEN, {'all': (28.6, 78.4, 34.5, 21.9, 34.3)}),
    ('1', TO_CITYSCAPES, ('AP', 'PQ', 'mIoU'), {'all': (29.3, 41.0, 47.9)}),
    ('2', COCO, _FOUR, {'all': _36E, 'SAM-CP, Swin-L': _SWIN}),
    (
        '2',
        ADE20K,
        _FOUR,
        {'all': (38.5, 28.7, 25.1, 42.4), 'SAM-CP, Swin-L': (44.4, 34.6, 30.3, 49.4)},
    ),
    (
        '3',
        COCO,
        _FOUR,
        {
            'all': _ALL,
            'no-mfl': (0.0, 3.5, 0.0, 0.0),
            'no-dice': (41.3, 35.1, 34.3, 48.3),
            'match-no-mfl': (42.8, 44.0, 39.8, 51.4),
            'match-no-dice': (45.3, 44.8, 40.6, 53.7),
            'match-no-boxes': (45.5, 44.0, 40.7, 53.9),
        },
    ),
    (
        '3',
        TO_ADE20K,
        _OPEN,
        {
            'all': _ALL_OPEN,
            'no-mfl': (0.6, 22.0, 0.9, 0.0, 3.4),
            'no-dice': (23.8, 73.4, 29.1, 15.8, 28.6),
            'match-no-mfl': (26.5, 78.2, 32.3, 17.2, 31.6),
            'match-no-dice': (26.6, 76.6, 32.4, 16.7, 31.5),
            'match-no-boxes': (25.9, 76.1, 31.6, 16.4, 30.5),
        },
    ),
    (
        '4',
        COCO,
        _FOUR,
        {
            'no-dca': (45.4, 45.6, 41.1, 51.8),
            'no-ar': (43.5, 44.0, 39.9, 51.1),
            'no-maskroi': (44.1, 45.3, 40.6, 51.1),
            'no-qe': (44.8, 44.5, 40.5, 51.6),
            'no-bg': (45.2, 45.4, 41.3, 52.6),
            'all': _ALL,
        },
    ),
    (
        '4',
        TO_ADE20K,
        _OPEN,
        {
            'no-dca': (26.6, 76.9, 32.5, 16.6, 31.7),
            'no-ar': (25.8, 76.8, 31.3, 16.3, 30.5),
            'no-maskroi': (25.6, 74.4, 31.1, 16.5, 30.3),
            'no-qe': (26.5, 75.7, 32.1, 16.5, 31.4),
            'no-bg': (25.5, 75.7, 31.2, 16.1, 30.3),
            'all': _ALL_OPEN,
        },
    ),
    (
        '5',
        COCO,
        _FOUR,
        {'all': _ALL, 'no-pe': (45.8, 45.0, 40.6, 51.7), 'image': (46.2, 45.6, 40.9, 52.3)},
    ),
    (
        '6',
        TO_ADE20K,
        ('PQ', 'PQ_th', 'PQ_st', 'AP', 'mIoU'),
        {
            'kappa-0': (17.5, 15.7, 21.1, 11.9, 19.1),
            'kappa-1': (16.9, 14.1, 22.6, 6.7, 22.5),
            'all': (27.2, 27.0, 27.7, 17.0, 31.8),
        },
    ),
    ('7', COCO, _FOUR, {'all': _36E, 'extra': (51.4, 51.6, 45.8, 57.3)}),
    (
        '8',
        TO_ADE20K,
        ('PQ',),
        {
            'kappa-0': (17.5,),
            'kappa-0.3': (26.9,),
            'all': (27.2,),
            'kappa-0.5': (26.2,),
            'kappa-0.8': (22.9,),
            'kappa-1': (16.9,),
        },
    ),
    (
        '9',
        COCO,
        PROPOSALS,
        {
            'best': (71.1, 79.5, 8.9, 16.7, 39.3),
            'parts': (73.3, 81.2, 9.0, 15.0, 33.3),
            'Mask DINO': (76.3, 83.0, 4.2, 10.1, 32.3),
        },
    ),
    (
        '10',
        PASCAL_PART,
        ('AP', 'AP50', 'AP75'),
        {'all': (13.7, 30.5, 10.6), 'general': (13.6, 30.1, 10.5)},
    ),
    (
        '11',
        TO_ADE20K,
        (MAKING, REST, TOTAL, 'PQ', 'AP', 'mIoU'),
        {
            'all': (3.41, 0.21, 3.62, 27.2, 17.0, 31.8),
            'other': (1.61, 0.18, 1.79, 27.9, 18.0, 32.6),
            'FC-CLIP': (0, 0.24, 0.24, 25.2, 16.4, 32.6),
            'FrozenSeg': (3.41, 1.07, 4.48, 25.9, 16.4, 34.4),
        },
    ),
    (
        '12',
        COCO,
        _FOUR,
        {
            'tau-0.9': (43.2, 42.8, 38.2, 49.9),
            'tau-0.8': (45.0, 45.4, 40.7, 52.6),
            'tau-0.7': (43.3, 43.3, 39.9, 50.3),
            'tau-0.5': (42.0, 34.3, 37.2, 48.9),
            'no-box-iop': (42.1, 31.7, 35.4, 48.4),
            'no-mask-iop': (39.7, 42.3, 32.5, 44.1),
            'all': _ALL,
        },
    ),
    (
        '13',
        COCO,
        ('AP', 'AP50'),
        {
            'all': (41.7, 59.4),
            'OVSAM, R50': (35.8, 55.6),
            'OVSAM, Swin-B': (36.7, 57.2),
            'Prompt Segment Anything, R50': (41.5,),
        },
    ),
    (
        '14',
        COCO,
        ('PQ', 'AP', 'mIoU'),
        {'all': (52.7, 45.2, 61.8), 'SEEM, ViT-L': (52.0, 43.5, 60.2)},
    ),
    (
        '15',
        COCO,
        ('mIoU',),
        {'all': (61.8,), 'Semantic-SAM': (57.0,), 'Semantic-SAM, reproduced': (55.1,)},
    ),
)
SAMCP_FIGURES = tuple(
    SAMCPFigure(table, data, row, metric, value)
    for table, data, metrics, rows in _TABLES
    for row, values in rows.items()
    for metric, value in zip(metrics, values)
)


def samcp_figures(table: str, data: str) -> dict[tuple[str, str], float]:
    """Numbers by row and metric of one table on one kind of data; none if the paper has none."""
    return {(f.row, f.metric): f.value for f in SAMCP_FIGURES if (f.table, f.data) == (table, data)}
