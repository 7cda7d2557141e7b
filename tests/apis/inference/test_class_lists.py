"""Lists of classes: names of every kind, and which of them are things."""

import re
from pathlib import Path

import pytest
import torch
from toy_samcp_prompts import write_samcp, write_scene

from mmprompt.apis import Inferencer
from mmprompt.apis.cli import find_config
from mmprompt.apis.inference.class_lists import ClassList, list_of
from mmprompt.common.errors import UserError
from mmprompt.common.texts import Texts
from mmprompt.methods.samcp import head as head_module
from mmprompt.methods.samcp.text import read_text

OWN = ClassList(('road', ('car', 'truck'), 'sky'), (1,), own=True)


def test_names_in_any_letters_and_any_place_are_things():
    for texts, things, expected in (
        (['Car', 'Road', 'person'], None, (0, 2)),
        ([['lorry', 'Truck'], 'sky'], None, (0,)),
        (['sky', ['child', 'PERSON']], None, (1,)),
        (['dining-table', 'Dining_Room'], None, (0,)),
        (['road', 'Traffic Light'], None, ()),
        (['street', 'Traffic Light'], None, (1,)),
        (['Sky', ['a', 'b']], ['sky', 'B'], (0, 1)),
        (None, ['Truck'], (1,)),
        (None, ['Sky'], (2,)),
        (None, None, (1,)),
    ):
        assert list_of(texts, things, OWN).things == expected, (texts, things)


def test_one_string_and_two_classes_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"found the string 'car'. Write \['car'\]"):
        list_of('car', None, OWN)
    for texts in (['car', 'Car'], [['car', 'truck'], 'sky', 'car']):
        with pytest.raises(UserError, match='expected classes of different names'):
            list_of(texts, None, OWN)


def test_the_config_s_own_classes_keep_all_their_names(tmp_path, monkeypatch):
    """An encoder that knows synonyms: the same numbers after things, other texts and finer ones."""
    config, weights = write_samcp(tmp_path)
    picture = write_scene(tmp_path / 'a.png')
    cfg = find_config(config)
    classes = list(cfg.model.classes)
    groups = [[f'the {name}', f'{name}s'] for name in classes]
    cfg.model.head.text = dict(clip='toy', names=groups)

    def encode(text, names, dim):
        names = text.get('names', names)
        flat = [[n] if isinstance(n, str) else list(n) for n in names]
        words = [(word, c) for c, group in enumerate(flat) for word in group]
        rows = [
            torch.randn(dim, generator=torch.Generator().manual_seed(sum(word.encode())))
            for word, _ in words
        ]
        return Texts(torch.stack(rows), torch.tensor([c for _, c in words]), flat)

    for where in ('mmprompt.methods.samcp.head', 'mmprompt.apis.inference.samcp_loading'):
        monkeypatch.setattr(f'{where}.read_text', encode)
    assert head_module.read_text is encode
    plain = Inferencer(cfg, weights)
    own, things = plain(picture), plain.things['panoptic']
    assert len(plain.model.head.entries) == 2 * len(classes)
    names = plain.model.encoded_names
    named = Inferencer(cfg, weights, things=[f'{classes[i]}s' for i in things])
    plain.ask(['kite'])
    plain.ask(None)
    closer = Inferencer(cfg, weights)
    closer.finer(picture, {classes[0]: ['wheel']}, score_threshold=0.1, overlap_threshold=0.1)
    for segment in (plain, named, closer):
        assert segment.things['panoptic'] == things
        assert segment.classes['panoptic'] == tuple(classes)
        assert segment.model.encoded_names == names
        again = segment(picture)
        for task, expected in own.items():
            assert again[task].scores.tolist() == expected.scores.tolist()
    # Asked for by their names in the config alone, they are other texts.
    plain.ask(classes)
    assert len(plain.model.head.entries) == len(classes)


def test_the_words_that_the_guide_lists_are_known_to_seem_nano():
    guide = (Path(__file__).parents[3] / 'docs/predict.md').read_text()
    listed = guide.split('knows 113 tokens')[1].split('Another word is refused')[0]
    words = re.findall('`([a-z ]+)`', listed)
    assert len(words) > 50 and {'road', 'traffic light'} <= set(words)
    texts = read_text(dict(base='mmprompt://seem-nano_streets'), words, 80)
    assert texts.num_classes == len(words)
    with pytest.raises(UserError, match='kite'):
        read_text(dict(base='mmprompt://seem-nano_streets'), ['kite'], 80)
