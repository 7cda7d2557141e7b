"""Pascal-Part: the 93 categories, names of parts, and MATLAB files of any number of objects."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from scipy.io import savemat
from toy_pascal_part import box, write_mat

from mmprompt.common.errors import UserError
from mmprompt.datasets.pascal_part import (
    PASCAL_PARTS,
    PASCAL_WHOLES,
    part_category,
    read_pascal_part,
)

BASES = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'
#: How many parts the literature has of each kind of object.
COUNTS = dict(aeroplane=4, bicycle=3, bird=9, bottle=2, bus=6, car=6, cat=9, cow=9, dog=10)
COUNTS |= {'horse': 8, 'motorbike': 4, 'person': 12, 'potted plant': 2, 'sheep': 9}


def test_the_categories_are_93_parts_of_14_of_20_kinds():
    assert (len(set(PASCAL_PARTS)), len(PASCAL_WHOLES)) == (93, 20)
    assert Counter(name.partition(':')[0] for name in PASCAL_PARTS) == COUNTS
    assert set(COUNTS) < set(PASCAL_WHOLES.values())
    base = Config.fromfile(str(BASES / 'samcp_pascal-part.py'))
    assert base.part_names == PASCAL_PARTS
    assert base.whole_names == tuple(PASCAL_WHOLES.values())


@pytest.mark.parametrize(
    ('kind', 'name', 'category'),
    [
        ('horse', 'lfuleg', 'horse:leg'),
        ('horse', 'rbho', None),  # hooves
        ('dog', 'lfpa', 'dog:paw'),
        ('cat', 'rear', 'cat:ear'),
        ('person', 'rebrow', None),
        ('person', 'luarm', 'person:arm'),
        ('person', 'head', 'person:head'),
        ('car', 'fliplate', 'car:license plate'),
        ('car', 'headlight_12', 'car:headlight'),
        ('bus', 'leftmirror', 'bus:mirror'),
        ('bus', 'leftside', None),
        ('bicycle', 'chainwheel', 'bicycle:wheel'),
        ('aeroplane', 'engine_1', None),
        ('potted plant', 'pot', 'potted plant:pot'),
        ('train', 'coach_1', None),
        ('sheep', 'lhorn', 'sheep:horn'),
    ],
)
def test_part_category(kind, name, category):
    assert part_category(kind, name) == category


@pytest.mark.parametrize('parts', [0, 1, 3])
@pytest.mark.parametrize('objects', [0, 1, 2])
def test_reads_files_of_any_number(objects, parts, tmp_path):
    names = ['head', 'wheel_1', 'tail'][:parts]
    masks = [box(i, i, i + 2, i + 2) for i in range(parts)]
    kinds = ['pottedplant', 'table'][:objects]
    write_mat(tmp_path / 'a.mat', [(k, box(0, 0, 5, 5), [*zip(names, masks)]) for k in kinds])
    found = read_pascal_part(tmp_path / 'a.mat')
    assert [each.kind for each in found] == ['potted plant', 'dining table'][:objects]
    for each in found:
        np.testing.assert_array_equal(each.mask, box(0, 0, 5, 5))
        assert [name for name, _ in each.parts] == names
        for (_, mask), expected in zip(each.parts, masks):
            np.testing.assert_array_equal(mask, expected)


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / 'a.mat'
    with pytest.raises(UserError, match='found no such file'):
        read_pascal_part(path)
    good = ('dog', box(0, 0, 5, 5), [('head', box(0, 0, 2, 2))])
    write_mat(path, [good])
    whole = path.read_bytes()
    savemat(tmp_path / 'other.mat', dict(x=1))
    for content in (b'', b'no', whole[:150], whole[:-20], (tmp_path / 'other.mat').read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r'a\.mat: expected a MATLAB file of Pascal-Part'):
            read_pascal_part(path)
    write_mat(path, [('unicorn', *good[1:])])
    with pytest.raises(UserError, match='unicorn'):
        read_pascal_part(path)
    write_mat(path, [good, ('dog', box(0, 0, 1, 1, (4, 4)), [])])
    with pytest.raises(UserError, match='masks of one size'):
        read_pascal_part(path)
