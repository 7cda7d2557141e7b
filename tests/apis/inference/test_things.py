"""Which classes are things when nobody says so."""

import pytest
from mmseg.datasets import CityscapesDataset

from mmprompt.apis.inference.things import THINGS, thing_indices
from mmprompt.common.errors import UserError


def test_cityscapes_things_are_its_eight():
    classes = CityscapesDataset.METAINFO['classes']
    assert thing_indices(dict(a=classes)) == dict(a=tuple(range(11, 19)))


def test_every_coco_object_is_a_thing():
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    assert set(names) <= THINGS
    assert thing_indices(dict(a=names))['a'] == tuple(range(80))


def test_given_names_are_looked_up_in_every_list():
    lists = dict(a=['road', 'car'], b=['car', 'dog', 'sky'])
    assert thing_indices(lists, ['dog', 'car']) == dict(a=(1,), b=(0, 1))
    assert thing_indices(lists, []) == dict(a=(), b=())
    with pytest.raises(UserError, match=r"found 'cat'\. The classes are car, dog, road, sky"):
        thing_indices(lists, ['cat'])


def test_what_a_prompt_was_trained_with_goes_before_known_names():
    lists = dict(a=['road', 'car', 'kiosk'], b=['road', 'car'])
    learned = dict(a=('kiosk',), b=None)
    assert thing_indices(lists, None, learned) == dict(a=(2,), b=(1,))
    assert thing_indices(lists, ['car'], learned) == dict(a=(1,), b=(1,))
