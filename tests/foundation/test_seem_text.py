"""The language side: templates, tokens, synonyms, the compact table."""

from pathlib import Path

import pytest
import torch
from mmengine import Config

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, SEEMTextEncoder
from mmprompt.foundation.seem.templates import clean_name, seem_templates
from mmprompt.foundation.seem.tokenizer import END, START, collect_token_ids, tokenize

NANO = Path(__file__).resolve().parents[2] / 'configs/_base_/models/seem-nano.py'
SIZES = dict(width=8, num_layers=2, num_heads=2, context_length=16, dim=6)


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    return SEEMTextEncoder(**SIZES, token_ids=collect_token_ids(['car', 'bus'], ('a {}.', '{}.')))


def test_templates():
    templates = seem_templates()
    assert len(templates) == len(set(templates)) == 81
    assert templates[0] == '{}.'
    assert all(t.count('{}') == 1 and t.endswith('.') for t in templates)


@pytest.mark.parametrize(
    'name, cleaned', [('wall-other-merged', 'wall'), ('sky', 'sky'), ('food-stuff', 'food')]
)
def test_names_are_cleaned(name, cleaned):
    assert clean_name(name) == cleaned


def test_tokens():
    ids = tokenize(['traffic light', 'a very long text ' * 10], 12)
    assert ids.shape == (2, 12)
    assert ids[:, 0].tolist() == [START] * 2
    assert ids[1, -1] == END
    assert (ids[0] == END).sum() == 12 - 3


def test_compact_table_equals_the_full_one(encoder):
    full = SEEMTextEncoder(**SIZES)
    state = encoder.state_dict()
    rows = torch.zeros_like(full.token_embedding.weight)
    rows[encoder.token_ids] = state['token_embedding.weight']
    full.load_state_dict({**state, 'token_embedding.weight': rows})
    names = ['car', 'bus']
    templates = ('a {}.', '{}.')
    torch.testing.assert_close(
        full.class_embeddings(names, templates), encoder.class_embeddings(names, templates)
    )


def test_an_unknown_word_is_named(encoder):
    with pytest.raises(UserError, match="'zebra'"):
        encoder.class_embeddings(['car', 'zebra'], ('{}.',))
    with pytest.raises(UserError, match='321'):
        encoder(torch.tensor([[START, 321, 320, END]]))
    with pytest.raises(UserError, match=str(START)):
        SEEMTextEncoder(**SIZES, token_ids=[320])


def test_class_embeddings(encoder):
    templates = ('a {}.', '{}.')
    rows = encoder.class_embeddings(['car', ['bus', 'car']], templates)
    assert rows.shape == (3, 6)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    car, bus, empty = encoder.class_embeddings(['car', 'bus'], templates)
    torch.testing.assert_close(rows[0], car)
    torch.testing.assert_close(rows[1], torch.nn.functional.normalize(car + bus, dim=0))
    torch.testing.assert_close(rows[2], empty)
    each = torch.stack([encoder.encode_texts([t.format('car')])[0] for t in templates])
    torch.testing.assert_close(car, torch.nn.functional.normalize(each.mean(0), dim=0))


def test_padding_does_not_matter(encoder):
    short = encoder.encode_texts(['car.'])
    torch.testing.assert_close(encoder.encode_texts(['car.', 'a bus.'])[:1], short)


def test_sampled_embeddings_reach_the_word_table(encoder):
    generator = torch.Generator().manual_seed(0)
    rows = encoder.sampled_embeddings([['car', 'bus']], ('{}.', 'a {}.'), generator)
    assert rows.shape == (2, 6)
    rows.sum().backward()
    assert encoder.token_embedding.weight.grad.abs().sum() > 0
    encoder.zero_grad()


def test_nano_config_keeps_the_tokens_of_its_words():
    config = Config.fromfile(NANO)
    expected = collect_token_ids(config.class_synonyms, ('{}', *seem_templates()))
    assert list(config.token_ids) == expected
    with torch.device('meta'):
        model = SEEM(**config.seem)
    assert sum(p.numel() for p in model.parameters()) == 1_850_073
