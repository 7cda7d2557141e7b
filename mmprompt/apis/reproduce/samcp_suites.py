"""Which tables the SAM-CP paper has, and where each can be run."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmprompt.apis.reproduce.samcp_paper import (
    COCO,
    MAKING,
    PASCAL_PART,
    PROPOSALS,
    REST,
    TO_ADE20K,
    TOTAL,
)
from mmprompt.apis.reproduce.samcp_rows import ALL, COCO128, OPEN, PARTS, STREETS, STUDIES
from mmprompt.common.errors import UserError

_FOUR = ('PQ', 'AP_det', 'AP', 'mIoU')
_OPEN = ('PQ', 'SQ', 'RQ', 'AP', 'mIoU')
_APART = ('AP', 'AP_seen', 'AP_unseen', 'mIoU', 'mIoU_seen', 'mIoU_unseen')
_SMALL = (STREETS, COCO128)
_R50, _CLIP = 'samcp_r50_coco-panoptic_12e', 'samcp_clip-convnext-l_coco-panoptic_12e'


@dataclass(frozen=True)
class SAMCPTable:
    """A table of the paper.

    Attributes:
        number: there.
        title: what it shows.
        places: rows by study in which it can be run; the first is meant if none is named.
        metrics: columns.
        data: the paper's columns that stand beside those of small studies.
        configs: of the paper's own setting.
        note: on the command of the paper's own setting.
    """

    number: str
    title: str
    places: Mapping[tuple[str, str], tuple[str, ...]]
    metrics: tuple[str, ...] = _FOUR
    data: str = COCO
    configs: tuple[str, ...] = (_R50,)
    note: str = ''

    def metrics_of(self, study: tuple[str, str]) -> tuple[str, ...]:
        """Columns of a study: an open vocabulary is measured otherwise in Tables 3 and 4."""
        if self.number == '1' and study == COCO128:
            return _APART
        return _OPEN if study == OPEN and self.metrics == _FOUR else self.metrics


_LOSSES = (ALL, 'no-mfl', 'no-dice', 'match-no-mfl', 'match-no-dice', 'match-no-boxes')
_MODULES = ('no-dca', 'no-ar', 'no-maskroi', 'no-qe', 'no-bg', ALL)
_TAU = ('tau-0.9', 'tau-0.8', 'tau-0.7', 'tau-0.5', 'no-box-iop', 'no-mask-iop', ALL)
_36E = 'samcp_r50_coco-panoptic_36e'
_ROW_OPTIONS = 'a row by --cfg-options, see docs/samcp.md'
_BOTH = f'{_ROW_OPTIONS}; CLIP is tested with samcp_clip-convnext-l_coco-to-ade20k'
_ON_ADE20K = 'then tools/test.py with samcp_clip-convnext-l_coco-to-ade20k, '


def _in(rows: tuple[str, ...], *studies: tuple[str, str]) -> dict:
    return dict.fromkeys(studies, rows)


SAMCP_TABLES = {
    table.number: table
    for table in (
        SAMCPTable(
            '1',
            'open vocabulary',
            {COCO128: ('seen-60',), OPEN: (ALL,)},
            _OPEN,
            TO_ADE20K,
            (_CLIP, 'samcp_clip-convnext-l_ade20k_160k'),
            'then tools/test.py with samcp_clip-convnext-l_coco-to-ade20k, '
            'samcp_clip-convnext-l_ade20k-to-coco and samcp_clip-convnext-l_coco-to-cityscapes',
        ),
        SAMCPTable(
            '2',
            'closed domain',
            _in((ALL,), *_SMALL),
            configs=(
                _36E,
                'samcp_r50_ade20k_160k',
                'samcp_swin-l_coco-panoptic_36e',
                'samcp_swin-l_ade20k_160k',
            ),
        ),
        SAMCPTable(
            '3',
            'losses and costs',
            _in(_LOSSES, *_SMALL, OPEN),
            configs=(_R50, _CLIP),
            note=_BOTH,
        ),
        SAMCPTable('4', 'modules', _in(_MODULES, *_SMALL, OPEN), configs=(_R50, _CLIP), note=_BOTH),
        SAMCPTable(
            '5', 'dynamic cross-attention', _in((ALL, 'no-pe', 'image'), *_SMALL), note=_ROW_OPTIONS
        ),
        SAMCPTable(
            '6',
            'classifiers',
            {OPEN: ('kappa-0', 'kappa-1', ALL)},
            ('PQ', 'PQ_th', 'PQ_st', 'AP', 'mIoU'),
            TO_ADE20K,
            (_CLIP,),
            _ON_ADE20K + _ROW_OPTIONS,
        ),
        SAMCPTable(
            '7',
            'extra proposals',
            _in((ALL, 'extra'), *_SMALL),
            configs=(_36E, f'{_36E}_mask-dino'),
        ),
        SAMCPTable(
            '8',
            'coefficient kappa',
            {OPEN: ('kappa-0', 'kappa-0.3', ALL, 'kappa-0.5', 'kappa-0.8', 'kappa-1')},
            ('PQ',),
            TO_ADE20K,
            (_CLIP,),
            _ON_ADE20K + _ROW_OPTIONS,
        ),
        SAMCPTable(
            '9', 'patches against objects', _in(('best', 'parts', 'greedy'), *_SMALL), PROPOSALS
        ),
        SAMCPTable(
            '10',
            'parts',
            {PARTS: (ALL, 'general')},
            ('AP', 'AP50', 'AP75'),
            PASCAL_PART,
            ('samcp_clip-convnext-l_pascal-part', 'samcp_clip-convnext-l_pascal-part_general'),
        ),
        SAMCPTable(
            '11',
            'time',
            _in((ALL, 'other'), *_SMALL, OPEN),
            (MAKING, REST, TOTAL, 'PQ', 'AP', 'mIoU'),
            TO_ADE20K,
            (_CLIP,),
            'seconds: python benchmarks/samcp.py --parts split',
        ),
        SAMCPTable('12', 'parts of objects', _in(_TAU, *_SMALL), note=_ROW_OPTIONS),
        SAMCPTable('13', 'instances', _in((ALL,), *_SMALL), ('AP', 'AP50'), configs=(_36E,)),
        SAMCPTable(
            '14',
            'beside SEEM',
            _in((ALL,), *_SMALL),
            ('PQ', 'AP', 'mIoU'),
            configs=('samcp_swin-l_coco-panoptic_36e',),
        ),
        SAMCPTable(
            '15',
            'beside Semantic-SAM',
            _in((ALL,), *_SMALL),
            ('mIoU',),
            configs=('samcp_swin-l_coco-panoptic_36e',),
        ),
    )
}


def find_place(table: SAMCPTable, base: str | None, data: str | None) -> tuple[str, str] | None:
    """The study of a table: the first that has this base and data; None if none has.

    Raises:
        UserError: no table has them.
    """
    fits = [p for p in STUDIES if base in (None, p[0]) and data in (None, p[1])]
    if not fits:
        known = ', '.join(f'--base {b} --data {d}' for b, d in STUDIES)
        raise UserError(
            f'samcp: expected {known}, found --base {base} --data {data}. Correct the command.'
        )
    return next((place for place in table.places if place in fits), None)
