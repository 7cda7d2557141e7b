"""CLIP's text encoder and weights: the library's own tokens and pooling, and what can be wrong."""

import builtins
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from safetensors.torch import save_file
from tiny_clip import CONTEXT, tiny_clip
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.foundation.clip import encode_with_clip, load_clip, text_encoder
from mmprompt.foundation.clip.loading import clip_architecture
from mmprompt.foundation.clip.templates import VILD, clip_templates

open_clip = pytest.importorskip('open_clip')
SOUP = 'laion2b_s29b_b131k_ft_soup'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file of the tiny CLIP's weights, which are not those of a fresh one."""
    clip = load_clip(tiny_clip())
    torch.manual_seed(1)
    state = {name: torch.randn_like(x) * 0.3 for name, x in clip.state_dict().items()}
    path = tmp_path_factory.mktemp('clip') / 'clip.safetensors'
    save_file(state, path)
    return path


def test_a_row_is_what_the_library_gives(weights):
    """By token ids that OpenAI published: "a" is 320, "dog" 1929, "cat" 2368, "photo" 1125."""
    clip = load_clip(tiny_clip(), weights)

    def row(*ids):
        tokens = torch.zeros(1, CONTEXT, dtype=torch.long)
        tokens[0, : len(ids) + 2] = torch.tensor([49406, *ids, 49407])
        with torch.no_grad():
            return F.normalize(clip.encode_text(tokens)[0], dim=0)

    texts = encode_with_clip(['dog', 'cat-other'], tiny_clip(), weights)
    assert torch.allclose(texts.entries, torch.stack([row(320, 1929), row(320, 2368)]), atol=1e-6)
    several = encode_with_clip([['dog', 'cat'], 'dog'], tiny_clip(), weights, ('{}', 'photo {}'))
    means = [row(1929) + row(1125, 1929), row(2368) + row(1125, 2368)]
    dog, cat = (F.normalize(mean, dim=0) for mean in means)
    assert torch.allclose(several.entries, torch.stack([dog, cat, dog]), atol=1e-6)
    assert several.class_of.tolist() == [0, 0, 1]


def test_what_is_loaded_is_what_is_in_the_file(weights, tmp_path):
    clip = load_clip(ConfigDict(tiny_clip()), weights)
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    torch.save(clip.state_dict(), tmp_path / 'clip.bin')
    again = load_clip(tiny_clip(), str(tmp_path / 'clip.bin'))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, clip.state_dict()[name]), name


def test_random_weights_are_the_same_each_time_and_disturb_nobody():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = encode_with_clip(['dog'], tiny_clip()).entries
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(encode_with_clip(['dog'], tiny_clip()).entries, first)


def test_many_texts_are_encoded_as_one_by_one(weights):
    names = [f'dog {i}' for i in range(text_encoder.BATCH + 3)]
    many = encode_with_clip(names, tiny_clip(), weights).entries
    for i in (0, text_encoder.BATCH - 1, text_encoder.BATCH + 2):
        one = encode_with_clip([names[i]], tiny_clip(), weights).entries[0]
        assert torch.allclose(many[i], one, atol=1e-6)


def test_rows_are_kept_for_the_same_weights_only(weights, tmp_path, monkeypatch):
    names = [['dog', 'cat'], 'car']
    first = encode_with_clip(names, tiny_clip(), weights)
    changed = {name: x * 1.5 for name, x in load_clip(tiny_clip(), weights).state_dict().items()}
    save_file(changed, tmp_path / 'other.safetensors')
    other = encode_with_clip(names, tiny_clip(), tmp_path / 'other.safetensors')
    assert not torch.allclose(first.entries, other.entries, atol=1e-3)
    monkeypatch.setattr(text_encoder, 'load_clip', lambda *args: pytest.fail('encoded again'))
    again = encode_with_clip(names, tiny_clip(), weights)
    assert torch.equal(again.entries, first.entries)
    assert again.class_of.tolist() == [0, 0, 1]


def test_other_names_do_not_load_the_clip_anew(weights, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        text_encoder, 'load_clip', lambda *args: calls.append(args) or load_clip(*args)
    )
    text_encoder._kept.clear()
    copied = tmp_path / 'copied.safetensors'
    shutil.copy(weights, copied)
    for name, file in (('one', weights), ('two', weights), ('three', copied)):
        encode_with_clip([name], tiny_clip(), file)
    assert len(calls) == 1  # a copy holds the same weights
    (kept,) = text_encoder._kept.values()
    assert kept.visual is None
    at_random = [encode_with_clip([name], tiny_clip()).entries for name in ('one', 'two', 'one')]
    assert len(calls) == 2 and len(text_encoder._kept) == 1
    assert torch.equal(at_random[0], at_random[2])
    encode_with_clip(['four'], tiny_clip(), weights)
    assert len(calls) == 3


def test_templates():
    assert clip_templates('a {}') == ('a {}',)
    assert len(clip_templates('clip')) == 80 and 'itap of a {}.' in clip_templates('clip')
    assert clip_templates('vild') is VILD and len(set(VILD)) == 14
    assert 'There is a medium {} in the scene.' in VILD and 'a photo of a small {}.' in VILD
    for wrong in ('photo', ('photo',), ('{} {}',), ()):
        with pytest.raises(UserError, match='templates'):
            clip_templates(wrong)


def test_the_activation_is_that_of_the_weights():
    """OpenAI's were trained with QuickGELU, which the name of the model does not say."""
    assert clip_architecture('ViT-B-32', 'openai')['quick_gelu']
    assert clip_architecture('ViT-B-32-quickgelu')['quick_gelu']
    assert not clip_architecture('ViT-B-32', 'laion2b_s34b_b79k')['quick_gelu']
    assert not clip_architecture('convnext_large_d_320', SOUP)['quick_gelu']


def test_a_model_is_named_or_described():
    with pytest.raises(UserError, match='convnext_large_d_320'):
        clip_architecture('convnext_large_d_321')
    with pytest.raises(UserError, match='without text_cfg'):
        load_clip(dict(embed_dim=4, vision_cfg={}))
    with pytest.raises(UserError, match='hf_tokenizer_name'):
        clip_architecture('ViT-B-16-SigLIP')


def test_weights_are_asked_for():
    with pytest.raises(UserError, match=f'found none.*{SOUP}'):
        load_clip('convnext_large_d_320')
    with pytest.raises(UserError, match=f'nothing.*{SOUP}'):
        load_clip('convnext_large_d_320', 'nothing')
    with pytest.raises(UserError, match='it has none'):
        load_clip(tiny_clip(), 'nothing')


def test_without_a_network_the_address_is_said(monkeypatch):
    def unreachable(*args, **kwargs):
        raise FileNotFoundError('Failed to download file. Last error: no network')

    monkeypatch.setattr('open_clip.pretrained.download_pretrained', unreachable)
    monkeypatch.setattr('open_clip.pretrained.download_pretrained_from_hf', unreachable)
    monkeypatch.setattr('open_clip.factory.download_pretrained_from_hf', unreachable)
    address = 'https://huggingface.co/laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup:'
    with pytest.raises(UserError, match=f'{re.escape(address)}.*open_clip_model.safetensors') as e:
        encode_with_clip(['dog'], 'convnext_large_d_320', SOUP)
    assert 'model.head.text.pretrained' in str(e.value)
    with pytest.raises(UserError, match='https://huggingface.co/someone/clip:'):
        encode_with_clip(['dog'], 'hf-hub:someone/clip')


def test_a_file_fits_or_is_refused(weights, tmp_path):
    state = load_clip(tiny_clip(), weights).state_dict()
    cut = {name: x for name, x in state.items() if name != 'ln_final.weight'}
    wide = {**state, 'logit_scale': torch.zeros(3)}
    for name, tensors, words in (
        ('cut', cut, '1 missing: ln_final.weight'),
        ('more', {**state, 'more': torch.zeros(1)}, '1 too much: more'),
        ('wide', wide, r'1 of another shape: logit_scale \(3,\) for \(\)'),
    ):
        save_file(tensors, tmp_path / f'{name}.safetensors')
        with pytest.raises(UserError, match=f'{name}.safetensors: expected the .*{words}'):
            load_clip(tiny_clip(), tmp_path / f'{name}.safetensors')
    (tmp_path / 'broken.safetensors').write_bytes(b'x' * 100)
    with pytest.raises(UserError, match='broken.*found none that can be read'):
        load_clip(tiny_clip(), tmp_path / 'broken.safetensors')


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save(dict(state_dict=np.ones), tmp_path / 'code.pt')  # anything but tensors
    with pytest.raises(UserError, match='found none that can be read'):
        load_clip(tiny_clip(), tmp_path / 'code.pt')


def test_what_cannot_be_read_is_said(weights, monkeypatch):
    with pytest.raises(UserError, match='at most 12 tokens.*ever so'):
        encode_with_clip(['ever so very very long a name of a class it is'], tiny_clip(), weights)

    plain = builtins.__import__

    def without(name, *rest, **more):
        if name == 'open_clip':
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UserError, match='pip install open_clip_torch'):
        encode_with_clip(['dog'], tiny_clip(), weights)
