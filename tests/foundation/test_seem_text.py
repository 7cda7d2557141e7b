"""The language side: templates, tokens, synonyms, the compact table."""

import hashlib
from pathlib import Path

import pytest
import torch
from mmengine import Config

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, SEEMTextEncoder, text_encoder
from mmprompt.foundation.seem.templates import clean_name, seem_templates
from mmprompt.foundation.seem.tokenizer import (
    END,
    START,
    collect_token_ids,
    encode_text,
    tokenize,
)

NANO = Path(__file__).resolve().parents[2] / 'configs/_base_/models/seem-nano.py'
SIZES = dict(width=8, num_layers=2, num_heads=2, context_length=16, dim=6)
# As Hugging Face's CLIPTokenizer (5.23) and open_clip (3.3) both answer.
IDS = {
    "a photo of a driver's seat.": [320, 1125, 539, 320, 4383, 568, 4922, 269],
    "don't": [847, 713],
    'T-shirt': [339, 268, 2523],
    '3D printer': [274, 323, 14521],
    '2x4 lumber': [273, 343, 275, 34692],
    'caf\u00e9': [15304],
    'cafe\u0301': [15304],
    'Straße': [1894, 127, 253, 324],
    '道路': [44854, 241, 164, 115, 363],
    'машина': [38018, 16912, 141, 230, 16701, 22705, 27080],
    'rock & roll': [2172, 261, 3341],
    'traffic_light': [3399, 318, 1395],
    'door, screen': [2489, 267, 3750],
    'light (traffic)': [1395, 263, 3399, 264],
    'C# book': [322, 258, 1116],
    '100% cotton': [272, 271, 271, 260, 7050],
    'a/b': [320, 270, 321],
    'v1.2.3': [341, 272, 269, 273, 269, 274],
    'emoji 🚗': [16327, 22783],
    'x²': [343, 41175],
    'wall-other-merged': [2569, 268, 1010, 268, 46492],
}
TEMPLATES_SHA256 = '4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af'


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


def test_templates_are_those_of_clip():
    """The published 80 sentences by a checksum: those of open_clip and of OpenAI's notebook."""
    text = '\n'.join(seem_templates()[1:])
    assert hashlib.sha256(text.encode()).hexdigest() == TEMPLATES_SHA256


@pytest.mark.parametrize('bad', ['a {}.', [], ['a photo'], ['{} {}'], ['{x} {}'], [3], ['{}', '']])
def test_bad_templates_are_refused(encoder, bad):
    with pytest.raises(UserError, match='templates: expected'):
        encoder.class_embeddings(['car'], bad)


@pytest.mark.parametrize(('text', 'ids'), IDS.items(), ids=str)
def test_token_ids_are_those_of_other_tokenizers(text, ids):
    assert tokenize([text], 77).tolist() == [[START, *ids, END]]


def test_equal_names_in_other_writing():
    plain = tokenize(['traffic light'], 77)
    for text in ('Traffic Light', '  traffic  light ', 'traffic\tlight', 'traffic\u00a0light\n'):
        assert torch.equal(tokenize([text], 77), plain)


def test_what_is_mended_before_it_is_read():
    """Where OpenAI's CLIP and Hugging Face's fast tokenizer differ, we do as the former."""
    for text, same in {
        'driver\u2019s seat': "driver's seat",
        '\u201cstop\u201d sign': '"stop" sign',
        '\ufb01re': 'fire',
        '\uff32oad': 'road',
        'rock &amp; sand': 'rock & sand',
    }.items():
        assert encode_text(text) == encode_text(same)


def test_long_texts_keep_start_and_end():
    (ids,) = tokenize(['road ' * 200], 77).tolist()
    assert ids == [START, *[1759] * 75, END]
    assert tokenize(['road ' * 75], 77).tolist() == [ids]


@pytest.mark.parametrize('text', ['', ' \n', '<start_of_text>', 'car <end_of_text>'])
def test_texts_without_words_are_refused(text):
    with pytest.raises(UserError, match='expected words'):
        tokenize(['car', text], 77)


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


def test_shared_beginnings_change_nothing():
    """One text at a time, by the ordinary forward, is what the tree of tokens must equal."""
    torch.manual_seed(0)
    encoder = SEEMTextEncoder(**SIZES).double().eval()
    torch.nn.init.normal_(encoder.positional_embedding)
    words = ('car', 'traffic light', 'snow plough truck that is long', 'ca', 'car')
    texts = [t.format(word) for word in words for t in seem_templates()]
    alone = torch.cat([encoder(tokenize([text], 16)) for text in texts])
    expected = torch.nn.functional.normalize(alone, dim=1)
    for chunk in (1, 7, 1000):
        rows = encoder.encode_texts(texts, chunk)
        torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)


def test_each_text_is_computed_once_in_bounded_chunks(encoder, monkeypatch):
    seen = []
    compute = encoder._on_tree
    monkeypatch.setattr(encoder, '_on_tree', lambda rows: seen.append(rows) or compute(rows))
    rows = encoder.encode_texts(['car.', 'a bus.', 'car.', 'bus.', 'Car.'], 2)
    assert [len(part) for part in seen] == [2, 1]
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[0], rows[4])


def test_cut_texts_are_reported(encoder, monkeypatch):
    said = []
    monkeypatch.setattr(text_encoder, 'print_log', lambda text, *args: said.append(text))
    encoder.class_embeddings(['car ' * 12, 'bus'], ['a {}.'])
    assert said == []
    encoder.class_embeddings(['car ' * 13, 'bus'], ['a {}.'])
    assert len(said) == 1 and said[0].startswith('1 of 3 texts') and '16 tokens' in said[0]


def test_all_unknown_words_are_named(encoder):
    with pytest.raises(UserError, match="'zebra', 'okapi' .in the text 'zebra'"):
        encoder.encode_texts(['zebra', 'car', 'okapi', 'zebra'])


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
