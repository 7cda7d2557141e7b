"""What the papers report in Tables 2 to 10. None of it was measured here.

"Learning to Prompt Segmentation Foundation Models" and "Learning to Prompt Segment Anything Models"
print the same tables, but for Table 9: training efficiency in the first (also its Table 7), SAM in
the second. Of the latter, and of rows that neither text copy holds, nothing is listed.
"""

from collections.abc import Iterator
from typing import NamedTuple


class PaperFigure(NamedTuple):
    """One number of a paper.

    Attributes:
        table: its number there.
        model: 'SEEM-T' (Focal-T) or 'SEEM-L' (DaViT-L).
        row: a name of `mmprompt.methods.ssprompt.methods.METHODS`.
        column: as in the paper.
        metric: what is counted, with its unit.
        value: the number.
    """

    table: str
    model: str
    row: str
    column: str
    metric: str
    value: float


_COMMON = ('Cityscapes', 'BDD100K', 'Mapillary', 'ADE20K', 'PASCAL Context')
_ADVERSE = ('fog', 'night', 'rain', 'snow', 'mean')
_RATE = ('ms/image', 'GB')
#: Of each table and model: metrics by column (one for all, if it is a text), columns and rows.
_TABLES = {
    ('2', 'SEEM-T'): (
        'mIoU',
        _COMMON,
        {
            'zero-shot': (39.2, 37.4, 42.1, 14.6, 45.1),
            'coop': (50.1, 41.6, 43.3, 17.6, 45.9),
            'locn': (51.5, 42.6, 44.2, 19.3, 46.6),
            'ssprompt': (55.2, 47.1, 49.5, 23.2, 51.2),
        },
    ),
    ('2', 'SEEM-L'): (
        'mIoU',
        _COMMON,
        {
            'zero-shot': (49.3, 44.6, 47.9, 15.2, 37.1),
            'coop': (51.2, 45.2, 52.0, 18.1, 47.4),
            'locn': (52.7, 45.7, 53.2, 19.7, 48.9),
            'ssprompt': (57.1, 49.5, 56.2, 25.6, 55.3),
        },
    ),
    ('3', 'SEEM-T'): (
        'mIoU',
        _ADVERSE,
        {
            'zero-shot': (34.6, 26.2, 33.1, 35.8, 32.4),
            'coop': (36.7, 28.6, 33.5, 36.4, 33.8),
            'locn': (40.1, 29.1, 34.1, 36.6, 35.0),
            'ssprompt': (47.5, 32.1, 39.9, 43.1, 40.6),
        },
    ),
    ('3', 'SEEM-L'): (
        'mIoU',
        _ADVERSE,
        {
            'zero-shot': (48.1, 32.0, 47.4, 45.0, 43.1),
            'coop': (52.2, 33.5, 48.2, 45.6, 44.9),
            'locn': (53.7, 33.8, 49.5, 45.9, 45.7),
            'ssprompt': (57.7, 37.8, 54.5, 49.5, 49.9),
        },
    ),
    ('4', 'SEEM-T'): (
        ('mIoU', 'AP50', 'PQ'),
        ('semantic', 'instance', 'panoptic'),
        {'zero-shot': (39.2, 32.7, 32.4), 'ssprompt': (55.2, 37.7, 38.0)},
    ),
    ('5', 'SEEM-T'): (
        'mIoU',
        ('Cityscapes',),
        {
            'zero-shot': (39.2,),
            'spaprompt-embedding-only': (46.2,),
            'spaprompt': (49.3,),
            'semprompt-embedding-only': (51.5,),
            'semprompt': (53.1,),
            'ssprompt': (55.2,),
        },
    ),
    ('6', 'SEEM-T'): (
        'mIoU',
        ('16-shot', '12-shot', '8-shot', '4-shot'),
        {'zero-shot': (39.2,) * 4, 'ssprompt': (55.2, 52.6, 50.6, 50.1)},
    ),
    ('7', 'SEEM-T'): (
        _RATE,
        ('ADE20K', 'ADE20K'),
        {'coop': (87.5, 8.22), 'locn': (89.5, 8.22), 'ssprompt': (56.0, 3.82)},
    ),
    ('8', 'SEEM-T'): (
        'mIoU',
        ('Cityscapes',),
        {'zero-shot': (39.2,), 'vspl': (41.0,), 'spaprompt': (49.3,), 'ssprompt': (55.2,)},
    ),
    ('9', 'SEEM-T'): (
        _RATE * 3,
        ('Mapillary', 'Mapillary', 'PASCAL Context', 'PASCAL Context', 'ADE20K', 'ADE20K'),
        {
            'coop': (155.0, 4.52, 122.1, 4.30, 87.5, 8.22),
            'locn': (158.0, 4.52, 122.4, 4.30, 89.5, 8.22),
            'ssprompt': (122.4, 3.22, 83.4, 2.49, 56.0, 3.82),
        },
    ),
    # The paper's column is called "5-task Mean", but repeats that of Cityscapes.
    ('10', 'SEEM-T'): (
        'mIoU',
        ('Cityscapes',),
        {
            'zero-shot-bare': (37.7,),
            'zero-shot': (39.2,),
            'coop': (50.1,),
            'locn': (51.5,),
            'ssprompt': (55.2,),
        },
    ),
}


def paper_figures(table: str, model: str = 'SEEM-T') -> Iterator[PaperFigure]:
    """The figures of a table, row by row; none if the papers have no such table or model."""
    if (table, model) not in _TABLES:
        return
    metrics, columns, rows = _TABLES[table, model]
    if isinstance(metrics, str):
        metrics = (metrics,) * len(columns)
    for row, values in rows.items():
        for column, metric, value in zip(columns, metrics, values, strict=True):
            yield PaperFigure(table, model, row, column, metric, value)
