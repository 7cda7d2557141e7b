"""From names to banks: what is built, what is read, and when neither is."""

import pytest
import torch

from mmprompt.common.checkpoint import load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, class_names, text_encoder
from mmprompt.foundation.seem.checkpoint import read_base
from mmprompt.foundation.seem.class_names import encode_names, encoder_fingerprint, make_text_bank
from tests.toy import CLASSES, toy_seem, write_base

NAMES = ['road', ['car', 'truck']]


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp('base') / 'base.safetensors')


@pytest.fixture(autouse=True)
def built(tmp_path, monkeypatch):
    """An empty cache, and the list of text encoders that were built."""
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    init, seen = text_encoder.SEEMTextEncoder.__init__, []

    def counted(self, *args, **kwargs):
        seen.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(text_encoder.SEEMTextEncoder, '__init__', counted)
    return seen


def test_rows_are_those_of_the_whole_model(base):
    bank = make_text_bank(NAMES, base)
    rows = SEEM.from_checkpoint(base).text_encoder.class_embeddings(NAMES)
    torch.testing.assert_close(bank.embeddings, rows)
    assert bank.embeddings.shape == (3, 16) and not bank.embeddings.requires_grad


def test_a_hit_builds_no_tower_and_reads_no_tensor(base, built, monkeypatch):
    first = make_text_bank(NAMES, base)
    assert len(built) == 1
    tensors, metadata = read_base(base)
    monkeypatch.setattr(class_names, 'read_base', lambda path: pytest.fail('read'))
    for bank in (make_text_bank(NAMES, base), encode_names(NAMES, tensors, metadata)):
        assert torch.equal(bank.embeddings, first.embeddings)
    assert len(built) == 1


def test_both_ways_share_one_entry(base, built):
    tensors, metadata = read_base(base)
    encode_names(NAMES, tensors, metadata, ['a {}.'])
    make_text_bank(NAMES, base, ('a {}.',))
    assert len(built) == 1


@pytest.mark.parametrize(
    'change',
    [
        dict(names=['road', ['truck', 'car']]),
        dict(templates=('{}.', 'a {}.')),
        dict(templates=None),
        dict(seed=1),
    ],
    ids=str,
)
def test_whatever_changes_the_rows_is_a_miss(base, built, tmp_path, change):
    make_text_bank(NAMES, base, ('a {}.', '{}.'))
    seed = change.pop('seed', 0)
    other = write_base(tmp_path / 'other.safetensors', seed=seed) if seed else base
    built.clear()
    make_text_bank(**{'names': NAMES, 'base': other, 'templates': ('a {}.', '{}.'), **change})
    assert len(built) == 1


def test_equal_weights_under_another_construction_are_another_encoder(base):
    _, metadata = read_base(base)
    config = metadata['config']
    heads = {**config, 'text_encoder': {**config['text_encoder'], 'num_heads': 4}}
    assert encoder_fingerprint(metadata) != encoder_fingerprint({**metadata, 'config': heads})
    image = {**config, 'backbone': {**config['backbone'], 'drop_path_rate': 0.3}}
    assert encoder_fingerprint(metadata) == encoder_fingerprint({**metadata, 'config': image})


def test_a_damaged_base_never_writes_an_entry(base, tmp_path):
    tensors, metadata = load_tensors(base)
    tensors['text_encoder.lang_proj'] = tensors['text_encoder.lang_proj'] + 1
    path = save_tensors(tmp_path / 'changed.safetensors', tensors, metadata)
    with pytest.raises(UserError, match='fingerprint'):
        make_text_bank(NAMES, path)
    assert not list((tmp_path / 'cache').rglob('*.safetensors'))


def test_half_precision_weights_are_encoded_in_float32():
    config = toy_seem()
    torch.manual_seed(0)
    model = SEEM(**config).half()
    tensors = model.state_dict()
    metadata = dict(config=config, fingerprint='half')
    bank = encode_names(NAMES, tensors, metadata)
    wide = model.float().text_encoder.class_embeddings(NAMES)
    assert bank.embeddings.dtype == torch.float32
    torch.testing.assert_close(bank.embeddings, wide.detach())


def test_bad_names_and_templates_cost_nothing(base, built):
    for names, templates, words in (
        ('road', None, 'found the string'),
        (['road', ''], None, "class 1 .* found ''"),
        (['road', ' -other'], None, 'class 1'),
        (['road', []], None, 'class 1'),
        ([None], None, 'class 0'),
        (NAMES, ['a photo'], 'number 1'),
        (NAMES, 'a {}.', 'list of sentences'),
        (NAMES, [], 'list of sentences'),
    ):
        with pytest.raises(UserError, match=words):
            make_text_bank(names, base, templates)
    assert not built


def test_a_base_without_text_encoder_is_named(tmp_path):
    seem = {key: value for key, value in toy_seem().items() if key != 'text_encoder'}
    path = write_base(tmp_path / 'base.safetensors', seem)
    with pytest.raises(UserError, match='no text encoder.*2 class names'):
        make_text_bank(NAMES, path)


def test_progress_reaches_the_number_of_different_texts(base):
    calls = []
    make_text_bank([*CLASSES, CLASSES[0]], base, None, lambda *call: calls.append(call))
    total = 81 * (len(CLASSES) + 1)
    assert calls[-1] == (total, total) and len(calls) == -(-total // 512)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_only_long_work_is_logged(monkeypatch):
    said = []
    now = iter([0.0, 4.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(class_names.time, 'monotonic', lambda: next(now))
    monkeypatch.setattr(class_names, 'print_log', lambda text, logger: said.append(text))
    progress = class_names.logged_progress(5.0)
    for done in (512, 1024, 1536):
        progress(done, 9999)
    assert said == ['class names: 1024 of 9999 texts are encoded']
