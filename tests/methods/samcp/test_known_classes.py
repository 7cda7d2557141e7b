"""Which classes of one data set another one has, by the names that the shipped leaves encode."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmprompt.foundation.seem.name_files import read_name_file
from mmprompt.methods.samcp.known_classes import flat, known_among, with_names

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'


def test_a_class_is_known_by_any_of_its_names():
    groups = with_names(('sky-other', 'lorry'), [['sky'], ['truck', 'Pick-Up_truck']])
    assert groups == [['sky-other', 'sky'], ['lorry', 'truck', 'Pick-Up_truck']]
    assert known_among(groups, ('SKY',)) == [True, False]
    assert known_among(groups, ('pick up  truck',)) == [False, True]
    assert known_among(groups, ('up',)) == [False, False]


def test_without_names_there_are_the_labels():
    assert with_names(('a', 'b'), None) == [['a'], ['b']]
    assert flat(('a', 'b'), None) == ('a', 'b') and flat(('a', 'b'), [['c'], ['d', 'e']]) == (
        'c',
        'd',
        'e',
    )


@pytest.mark.parametrize(
    ('trained', 'leaf', 'seen', 'by_label', 'among'),
    [
        ('coco-panoptic_12e', 'coco-to-ade20k', 59, 31, 'wall, sky, floor, tree, grass'),
        ('coco-panoptic_12e', 'coco-to-cityscapes', 16, 9, 'building, sky, wall, person, train'),
        ('coco-panoptic_12e', 'cod10k', 6, 5, 'human'),
        ('ade20k_160k', 'ade20k-to-coco', 57, 31, 'sky-other-merged, couch'),
    ],
)
def test_the_shipped_leaves_know_what_their_training_saw(trained, leaf, seen, by_label, among):
    source, target = (
        Config.fromfile(CONFIGS / f'samcp/samcp_clip-convnext-l_{name}.py').model
        for name in (trained, leaf)
    )
    encoded = [[name] if isinstance(name, str) else name for name in source.head.text.names]
    names = read_name_file(target.head.text.names)
    known = known_among(with_names(target.classes, names), flat(source.classes, encoded))
    assert sum(known) == seen
    assert {name for name, is_known in zip(target.classes, known) if is_known} >= set(
        among.split(', ')
    )
    assert sum(known_among(with_names(target.classes, None), source.classes)) == by_label
