"""What the rows of the SAM-CP paper's tables change, and on which bases and data they are run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmprompt.apis.reproduce.samcp_paper import COCO, PASCAL_PART, TO_ADE20K

#: The row that is the method as published; of an open vocabulary with kappa 0.4.
ALL = 'all'


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
        title: as printed.
        options: values by path into the config, in training and test.
        test_options: of the test alone.
        of: the row whose training is measured; None trains one of its own.
        leaf, test_leaf: configs other than the study's.
        rule: of `mmprompt.evaluation.proposal_quality`: its patches are measured, nothing is
            trained.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    test_options: Mapping[str, Any] = field(default_factory=dict)
    of: str | None = None
    leaf: str | None = None
    test_leaf: str | None = None
    rule: str | None = None


_HEAD, _LOSS = 'model.head', 'model.head.loss'
_PART = f'{_LOSS}.part_assigner'


def _cost(*names: str) -> dict[str, Any]:
    """Without some of the costs of matching."""
    return {f'{_LOSS}.assigner.{name}': None for name in names}


def _parts(**changes: Any) -> dict[str, Any]:
    """Parts found otherwise. Of Table 12 only the last row has the low-quality match."""
    return {f'{_PART}.{key}': value for key, value in (changes | dict(low_quality=None)).items()}


#: Rows of every study.
VARIANTS = {
    ALL: Variant('everything'),
    'no-mfl': Variant(
        'without mask focal loss and cost', {f'{_LOSS}.mfl_weight': 0, **_cost('mfl')}
    ),
    'no-dice': Variant('without Dice loss and cost', {f'{_LOSS}.dice_weight': 0, **_cost('dice')}),
    'match-no-mfl': Variant('matching without mask focal cost', _cost('mfl')),
    'match-no-dice': Variant('matching without Dice cost', _cost('dice')),
    'match-no-boxes': Variant('matching without boxes and GIoU', _cost('bbox', 'giou')),
    'no-dca': Variant('without DCA', {f'{_HEAD}.decoder.dynamic_attention': None}),
    'no-ar': Variant('without AR', {f'{_HEAD}.decoder.affinity_refinement': False}),
    'no-maskroi': Variant('without MaskRoI', {f'{_HEAD}.patch_encoder.mask_roi': False}),
    'no-qe': Variant('without QE', {f'{_HEAD}.decoder.query_enhancement': False}),
    'no-bg': Variant('without BG', {f'{_LOSS}.self_affinity': 0}),
    'no-pe': Variant('patch-level, without PE', {f'{_HEAD}.patch_encoder.num_layers': 0}),
    'image': Variant('image-level', {f'{_HEAD}.decoder.dynamic_attention': 'image'}),
    'tau-0.9': Variant('tau 0.9', _parts(tau=0.9)),
    'tau-0.8': Variant('tau 0.8', _parts()),
    'tau-0.7': Variant('tau 0.7', _parts(tau=0.7)),
    'tau-0.5': Variant('tau 0.5', _parts(tau=0.5)),
    'no-box-iop': Variant('tau 0.8, without IoP of boxes', _parts(use_box=False)),
    'no-mask-iop': Variant('tau 0.8, without IoP of masks', _parts(use_mask=False)),
    'best': Variant('best patch', rule='best'),
    'parts': Variant('union of parts', rule='parts'),
    'greedy': Variant('greedy union', rule='greedy'),
}


def _stores(train: str | None, test: str, places: tuple[str, ...]) -> dict[str, Any]:
    """Other patches, all of them: a cap would choose by scores that two generators do not share."""
    paths = {'train': train, 'test': test}
    values = {}
    for place in places:
        values[f'{place}_dataloader.dataset.pipeline.1.store'] = paths[place]
        values[f'{place}_dataloader.dataset.pipeline.1.max_patches'] = None
    return values


def _other_patches(more: str, both: str, names: tuple[str, str]) -> dict[str, Variant]:
    """Rows with two sets of patches, and with another one in the test alone.

    Args:
        more, both: stores; '{}' is the split, if each has a store of its own.
        names: of the patches of the study and of the others.
    """
    return {
        'extra': Variant(
            f'patches of {names[0]} and {names[1]}',
            _stores(both.format('train'), both.format('test'), ('train', 'test')),
        ),
        'other': Variant(
            f'tested on patches of {names[1]}',
            test_options=_stores(None, more.format('test'), ('test',)),
            of=ALL,
        ),
    }


@dataclass(frozen=True)
class Study:
    """What is run on one base and data.

    Attributes:
        leaf: the config; its steps and optimiser are those of its cells.
        test_leaf: the config of the test, where it is another one.
        variants: rows besides `VARIANTS`.
        data: in the terms of `samcp_paper`, what its numbers stand beside.
        mends: commands that make what a row needs besides what the leaf's head tells.
        generators: whose patches rows of Table 11 have, by the label of their measured times.
        is_small: whether it is run here; else it is the paper's own setting.
    """

    leaf: str
    test_leaf: str | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    data: str = COCO
    mends: tuple[str, ...] = ()
    generators: Mapping[str, str] = field(default_factory=dict)
    is_small: bool = True

    def has(self, row: str) -> bool:
        """Whether it is a row here, and no name of another method."""
        return row in self.variants or row in VARIANTS

    def variant(self, row: str) -> Variant:
        """What a row changes."""
        return self.variants[row] if row in self.variants else VARIANTS[row]


def _kappa(value: float) -> Variant:
    titles = {0.0: ', the learned classifier alone', 1.0: ', CLIP alone'}
    options = {'model.open_vocabulary.kappa': value}
    return Variant(f'kappa {value:g}{titles.get(value, "")}', test_options=options, of=ALL)


_STREETS_DB = 'data/patches/samcp_streets_{}_felzenszwalb'
_COCO128_DB = 'data/patches/coco128_'
_STREETS_DATA = 'configs/_base_/datasets/samcp_streets.py'
_CLIP = (
    'the weights of CLIP, fetched at the first start: see '
    'configs/_base_/models/samcp_clip-convnext-l.py'
)
_MAKE, _JOIN = 'python tools/generate_patches.py', 'python tools/import_patches.py'
_LEAVES = 'configs/samcp/samcp_'
STREETS, COCO128 = ('nano', 'streets'), ('r50', 'coco128')
OPEN, PARTS = ('clip-convnext-l', 'coco-to-ade20k'), ('clip-convnext-l', 'pascal-part')
STUDIES = {
    STREETS: Study(
        f'{_LEAVES}nano_streets.py',
        variants=_other_patches(
            f'{_STREETS_DB}-smooth.db',
            f'{_STREETS_DB}+smooth.db',
            ('Felzenszwalb', 'Felzenszwalb on smoothed images'),
        ),
        mends=tuple(
            command
            for split in ('train', 'test')
            for command in (
                f'{_MAKE} {_STREETS_DATA} --split {split} --generator felzenszwalb '
                f'--scales 300 1200 --options sigma=0.8 '
                f'--out {_STREETS_DB.format(split)}-smooth.db',
                f'{_JOIN} {_STREETS_DATA} --split {split} --source '
                f'patches={_STREETS_DB.format(split)}.db '
                f'patches={_STREETS_DB.format(split)}-smooth.db '
                f'--dedupe 0.9 --out {_STREETS_DB.format(split)}+smooth.db',
            )
        ),
        generators={ALL: 'felzenszwalb', 'other': 'felzenszwalb-smooth'},
    ),
    COCO128: Study(
        f'{_LEAVES}r50_coco128.py',
        variants={
            'seen-60': Variant(
                'trained on 60 of 71 classes',
                leaf=f'{_LEAVES}r50_coco128_seen-60.py',
                test_leaf=f'{_LEAVES}r50_coco128_seen-60_all-71.py',
            ),
            **_other_patches(
                f'{_COCO128_DB}felzenszwalb.db',
                f'{_COCO128_DB}mobile-sam+felzenszwalb.db',
                ('MobileSAM', 'Felzenszwalb'),
            ),
        },
        mends=(
            f'{_MAKE} --images data/coco128/images --generator felzenszwalb '
            f'--scales 300 1200 --out {_COCO128_DB}felzenszwalb.db',
            f'{_JOIN} --images data/coco128/images '
            f'--source patches={_COCO128_DB}mobile-sam.db patches={_COCO128_DB}felzenszwalb.db '
            f'--dedupe 0.9 --out {_COCO128_DB}mobile-sam+felzenszwalb.db',
        ),
        generators={ALL: 'mobile-sam', 'other': 'felzenszwalb'},
    ),
    OPEN: Study(
        f'{_LEAVES}clip-convnext-l_coco-panoptic_12e.py',
        f'{_LEAVES}clip-convnext-l_coco-to-ade20k.py',
        {
            ALL: Variant('kappa 0.4'),
            **{f'kappa-{kappa:g}': _kappa(kappa) for kappa in (0.0, 0.3, 0.5, 0.8, 1.0)},
            'other': Variant(
                'tested on patches of SAM 2',
                test_options=_stores(None, 'data/patches/samcp_ade20k_val_sam2.db', ('test',)),
                of=ALL,
            ),
        },
        TO_ADE20K,
        (f'{_MAKE} configs/_base_/datasets/samcp_ade20k.py --generator sam2 --split val',),
        {ALL: 'sam', 'other': 'sam2'},
        is_small=False,
    ),
    PARTS: Study(
        f'{_LEAVES}clip-convnext-l_pascal-part.py',
        variants={
            ALL: Variant('trained on parts'),
            'general': Variant(
                'trained on parts and wholes',
                leaf=f'{_LEAVES}clip-convnext-l_pascal-part_general.py',
            ),
        },
        data=PASCAL_PART,
        mends=(_CLIP,),
        is_small=False,
    ),
}
