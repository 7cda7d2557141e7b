"""Classes with one name or several."""

import pytest
import torch

from mmprompt.common.texts import Texts


def test_rows_have_unit_length_and_one_name_stays_as_it_is():
    texts = Texts(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert texts.entries.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 1]]
    assert texts.class_of.tolist() == [0, 1] and texts.num_classes == 2
    assert texts.mean is texts.entries


def test_a_class_is_the_mean_of_its_names():
    texts = Texts(torch.tensor([[5.0, 0], [0, 1], [0, 3]]), torch.tensor([0, 0, 1]))
    assert texts.num_classes == 2
    assert torch.allclose(texts.mean, torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]]))


def test_there_may_be_no_class():
    texts = Texts(torch.zeros(0, 3))
    assert texts.num_classes == 0 and texts.mean.shape == (0, 3)


@pytest.mark.parametrize('class_of', [[0, 2, 2], [1, 1, 2], [0, 1], [0, 1, 0], [-1, 0, 1]])
def test_classes_of_entries_are_checked(class_of):
    with pytest.raises(ValueError, match='class_of: expected'):
        Texts(torch.ones(3, 2), torch.tensor(class_of))


def test_entries_are_rows():
    with pytest.raises(ValueError, match='entries'):
        Texts(torch.ones(3))


def test_names_go_with_their_entries():
    class_of = torch.tensor([0, 0, 1])
    assert Texts(torch.ones(3, 2), class_of, [['a', 'b'], ['c']]).names == (('a', 'b'), ('c',))
    with pytest.raises(ValueError, match='names: expected one for each of the 3'):
        Texts(torch.ones(3, 2), class_of, [['a'], ['b', 'c']])
