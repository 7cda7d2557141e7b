import json
import multiprocessing
import os
import struct

import pytest
import torch

from mmprompt.common.checkpoint import load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank

NAMES = ['road', ['sky', 'heaven'], 'car']


class Cache:
    """`TextBank.cached` with an encoder that counts its calls and returns their number."""

    def __init__(self, root):
        self.root, self.calls = root, 0

    def __call__(self, names=NAMES, templates=('a {}.', '{}.'), encoder='f'):
        def encode():
            self.calls += 1
            return torch.full((len(names) + 1, 2), float(self.calls))

        bank = TextBank.cached(names, templates, encoder, encode, self.root)
        assert list(bank.names) == list(names) and list(bank.templates) == list(templates)
        return bank.embeddings[0, 0].item()

    @property
    def files(self):
        return sorted(p for p in self.root.rglob('*') if p.is_file())


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


def test_round_trip_and_check(tmp_path):
    bank = TextBank(NAMES, torch.randn(4, 8), 'f' * 64, ['a {}.'])
    loaded = TextBank.load(bank.save(tmp_path / 'bank.safetensors'))
    assert torch.equal(loaded.embeddings, bank.embeddings) and loaded.names == NAMES
    assert loaded.templates == ['a {}.'] and loaded.encoder_fingerprint == 'f' * 64
    loaded.check(['road', 'sky', 'car'])
    with pytest.raises(UserError, match="class 1 of 3 to be 'car'.*found 'sky'"):
        loaded.check(['road', 'car', 'sky'])
    with pytest.raises(UserError, match="class 2 of 2 to be None.*found 'car'"):
        loaded.check(['road', 'sky'])


def test_rows_must_be_numbers_one_per_class():
    for shape in ((3, 8), (4,), (4, 8, 1)):
        with pytest.raises(UserError, match='expected 4 rows'):
            TextBank(NAMES, torch.randn(*shape), '')
    rows = torch.ones(4, 8)
    rows[1, 3] = float('nan')
    with pytest.raises(UserError, match="row 1 .'sky'"):
        TextBank(NAMES, rows, '')


def test_a_hit_does_not_encode(cache):
    assert cache() == 1
    assert cache() == 1 and cache.calls == 1 and len(cache.files) == 1


@pytest.mark.parametrize(
    'change',
    [
        dict(templates=('{}.', 'a {}.')),
        dict(templates=('a {}.', '{}')),
        dict(templates=('a {}.',)),
        dict(names=['road', 'car', ['sky', 'heaven']]),
        dict(names=['road', ['heaven', 'sky'], 'car']),
        dict(names=['road', 'sky', 'car']),
        dict(names=['road', ['sky', 'heaven'], 'Car']),
        dict(encoder='g'),
    ],
    ids=str,
)
def test_the_key_is_names_templates_and_encoder(cache, change):
    assert cache() == 1
    assert cache(**change) == 2  # its own entry
    assert cache() == 1 and cache(**change) == 2 and cache.calls == 2


def cut(data):
    return data[:50]


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def no_header(data):
    return b'\0' * len(data)


def other_names(data):
    return data.replace(b'heaven', b'Heaven')


@pytest.mark.parametrize('damage', [cut, flip, no_header, other_names, lambda data: b''])
def test_a_damaged_entry_is_made_again(cache, damage):
    cache()
    (file,) = cache.files
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    assert cache() == 2
    assert cache() == 2 and cache.calls == 2 and cache.files == [file]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    cache = Cache(blocked)
    assert cache() == 1 and cache() == 2


def _encode_together(root, barrier, number):
    def encode():
        barrier.wait(30)  # both have found nothing
        return torch.full((4, 50_000), float(number))

    bank = TextBank.cached(NAMES, ['{}'], 'f', encode, root)
    barrier.wait(30)
    os._exit(0 if bank.embeddings[0, 0] == number else 1)


def test_two_processes_write_the_same_entry(tmp_path):
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_encode_together, args=(tmp_path, barrier, i)) for i in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    (file,) = (tmp_path / 'text').iterdir()  # and no temporary file
    rows = TextBank.load(file).embeddings
    assert rows.unique().numel() == 1 and rows.shape == (4, 50_000)


def test_what_is_no_bank_is_refused(tmp_path):
    path = tmp_path / 'x.safetensors'
    save_tensors(path, {'embeddings': torch.ones(2, 2)}, {'kind': 'seem', 'format': '1'})
    with pytest.raises(UserError, match="found kind 'seem'.*encode_class_names"):
        TextBank.load(path)
    good = TextBank(['road'], torch.ones(2, 2), 'f').save(path)
    tensors, metadata = load_tensors(good)
    for key, value in (('names', '{'), ('names', '["a", "b"]'), ('fingerprint', 'x')):
        save_tensors(path, tensors, {**metadata, key: value})
        with pytest.raises(UserError, match='x.safetensors'):
            TextBank.load(path)
    del metadata['templates']
    save_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match='damaged one .*templates'):
        TextBank.load(path)


def test_the_file_tells_its_names_to_any_reader(tmp_path):
    path = TextBank(['Straße'], torch.ones(2, 2), 'f').save(tmp_path / 'x.safetensors')
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack('<Q', data[:8])[0]])
    assert json.loads(header['__metadata__']['names']) == ['Straße']
    assert header['embeddings']['shape'] == [2, 2]
