"""Where class embeddings come from: files, rows by name, text encoders."""

import numpy as np
import pytest
import torch
from tiny_clip import DIM as CLIP_DIM
from tiny_clip import tiny_clip

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank
from mmprompt.foundation.seem.class_names import make_text_bank
from mmprompt.methods.samcp.text import read_text

DIM = 4
NANO = 'mmprompt://seem-nano_streets'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def array(tmp_path):
    """Rows of three names: the unit vectors times 2, 3 and 4."""
    path = tmp_path / 'rows.npy'
    np.save(path, np.eye(DIM)[:3] * [[2], [3], [4]])
    return str(path)


def test_an_array_has_a_row_for_each_class(array):
    texts = read_text(array, ('road', 'sky', 'car'), DIM)
    assert torch.equal(texts.entries, torch.eye(DIM)[:3])
    assert texts.class_of.tolist() == [0, 1, 2]


def test_rows_are_taken_by_name(array, tmp_path):
    text = dict(array=array, names=('road', 'sky', 'car'))
    texts = read_text(text, ('car', 'road'), DIM)
    assert torch.equal(texts.entries, torch.eye(DIM)[[2, 0]])
    several = read_text(text, (['sky', 'car'], 'road'), DIM)
    assert torch.equal(several.entries, torch.eye(DIM)[[1, 2, 0]])
    assert several.class_of.tolist() == [0, 0, 1]
    (tmp_path / 'names.txt').write_text('road\nsky\ncar\n')
    listed = dict(array=array, names=str(tmp_path / 'names.txt'))
    assert torch.equal(read_text(listed, ('car', 'road'), DIM).entries, texts.entries)


def test_names_of_rows_are_checked(array):
    with pytest.raises(UserError, match=r"none for 'kite' among its 3 names.*dict\(clip="):
        read_text(dict(array=array, names=('road', 'sky', 'car')), ('road', 'kite'), DIM)
    for names in (('road', 'sky'), ('road', 'sky', 'sky')):
        with pytest.raises(UserError, match='one name for each of its 3 rows, found 2'):
            read_text(dict(array=array, names=names), ('road',), DIM)
    with pytest.raises(UserError, match='names of its 3 rows, found none'):
        read_text(dict(array=array), ('road',), DIM)


def test_a_text_bank_has_one_row_for_each_class(tmp_path):
    rows = torch.randn(3, DIM)
    TextBank([['road', 'street'], 'sky'], rows, 'encoder').save(tmp_path / 'bank.safetensors')
    texts = read_text(str(tmp_path / 'bank.safetensors'), ('road', 'sky'), DIM)
    assert torch.equal(texts.entries, torch.nn.functional.normalize(rows[:2], dim=-1))
    with pytest.raises(UserError, match="'car'"):
        read_text(str(tmp_path / 'bank.safetensors'), ('road', 'car'), DIM)


def test_a_text_encoder_gives_an_entry_for_each_name(tmp_path):
    alone = make_text_bank(['road', 'car', 'sky'], NANO).embeddings[:3]
    dim = alone.shape[1]
    texts = read_text(dict(base=NANO), ('road', 'car', 'sky'), dim)
    assert torch.allclose(texts.entries, alone, atol=1e-6)
    (tmp_path / 'names.txt').write_text('road | car\nsky\n')
    several = read_text(dict(base=NANO, names=str(tmp_path / 'names.txt')), ('a', 'b'), dim)
    assert torch.equal(several.entries, texts.entries)
    assert several.class_of.tolist() == [0, 0, 1]


def test_clip_encodes_the_classes_or_names_in_their_place():
    pytest.importorskip('open_clip')
    text = dict(clip=tiny_clip())
    texts = read_text(text, ('dog', 'tree-merged'), CLIP_DIM)
    assert texts.entries.shape == (2, CLIP_DIM)
    named = read_text({**text, 'names': (['tree', 'dog'], 'dog')}, ('a', 'b'), CLIP_DIM)
    assert torch.allclose(named.entries, texts.entries[[1, 0, 0]], atol=1e-6)
    assert named.class_of.tolist() == [0, 0, 1]
    with pytest.raises(UserError, match='for each of the 2 classes.*found 1 classes'):
        read_text({**text, 'names': ('tree',)}, ('a', 'b'), CLIP_DIM)


def test_without_classes_nothing_is_read():
    texts = read_text('nowhere.npy', (), DIM)
    assert texts.entries.shape == (0, DIM) and texts.num_classes == 0


def test_arrays_are_checked(tmp_path, array):
    with pytest.raises(UserError, match='rows of 5 numbers'):
        read_text(array, ('road', 'sky', 'car'), 5)
    with pytest.raises(UserError, match='none that can be read'):
        read_text(str(tmp_path / 'none.npy'), ('road',), DIM)
    for wrong in (np.full((1, DIM), np.nan), np.ones((1, DIM), int), np.ones(DIM)):
        np.save(tmp_path / 'wrong.npy', wrong)
        with pytest.raises(UserError, match='finite floating point numbers'):
            read_text(str(tmp_path / 'wrong.npy'), ('road',), DIM)
