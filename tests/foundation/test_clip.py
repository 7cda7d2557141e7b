"""CLIP's text encoder: the library's own tokens and pooling, and what can be wrong."""

import builtins

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.foundation.clip import encode_with_clip
from mmprompt.methods.samcp.text import read_text

transformers = pytest.importorskip('transformers')
DIM = 6


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """A folder with a tiny text encoder at random."""
    folder = tmp_path_factory.mktemp('clip')
    config = transformers.CLIPTextConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=DIM,
        max_position_embeddings=12,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


def test_a_row_is_what_the_library_gives(clip):
    """By token ids that OpenAI published: "a" is 320, "dog" 1929, "cat" 2368, "photo" 1125."""
    model = transformers.CLIPTextModelWithProjection.from_pretrained(clip).eval()

    def row(*ids):
        with torch.no_grad():
            return F.normalize(model(torch.tensor([[49406, *ids, 49407]])).text_embeds[0], dim=0)

    rows = encode_with_clip(['dog', 'cat'], clip)
    assert torch.allclose(rows, torch.stack([row(320, 1929), row(320, 2368)]), atol=1e-6)
    several = encode_with_clip([['dog', 'cat']], clip, ('{}', 'photo {}'))
    mean = sum(row(*ids) for ids in ((1929,), (2368,), (1125, 1929), (1125, 2368)))
    assert torch.allclose(several[0], F.normalize(mean, dim=0), atol=1e-6)


def test_a_config_asks_for_it(clip):
    names = ('tree-merged', 'road')
    found = read_text(dict(clip=str(clip), names=('tree', 'road')), names, DIM)
    assert torch.equal(found, encode_with_clip(names, clip))
    with pytest.raises(UserError, match='each of the 2 classes'):
        read_text(dict(clip=str(clip), names=('tree',)), names, DIM)


def test_an_array_may_stand_in_for_it(clip, tmp_path):
    rows = encode_with_clip(['road', 'sky'], clip)
    np.save(tmp_path / 'rows.npy', rows.numpy())
    assert torch.equal(read_text(str(tmp_path / 'rows.npy'), ('road', 'sky'), DIM), rows)


def test_what_cannot_be_read_is_said(clip, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='at most 12 tokens.*ever so'):
        encode_with_clip(['ever so very very long a name of a class it is indeed'], clip)
    with pytest.raises(UserError, match='model.head.text.clip=FOLDER'):
        encode_with_clip(['dog'], tmp_path / 'nothing')

    plain = builtins.__import__

    def without(name, *rest, **more):
        if name == 'transformers':
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UserError, match='pip install "transformers'):
        encode_with_clip(['dog'], clip)
