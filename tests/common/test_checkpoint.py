import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmprompt.common.checkpoint import (
    fingerprint,
    load_tensors,
    map_tensors,
    read_metadata,
    resolve_weights,
    save_tensors,
)
from mmprompt.common.errors import UserError

TENSORS = {
    'z': torch.arange(6, dtype=torch.float32).reshape(2, 3),
    'flag': torch.tensor([True, False, True]),
    'half': torch.randn(5).to(torch.bfloat16),
    'scalar': torch.tensor(3, dtype=torch.int64),
    'empty': torch.zeros(0, 4),
    'strided': torch.randn(4, 3).t(),
}


def test_the_library_reads_what_we_write(tmp_path):
    path = save_tensors(tmp_path / 'deep' / 'x.safetensors', TENSORS, {'kind': 'test', 'ü': 'ß'})
    for loaded in (load_file(str(path)), load_tensors(path)[0], map_tensors(path)[0]):
        assert loaded.keys() == TENSORS.keys()
        assert all(torch.equal(v, TENSORS[k]) for k, v in loaded.items())
    with safe_open(str(path), 'pt') as stream:
        assert stream.metadata() == {'kind': 'test', 'ü': 'ß'} == read_metadata(path)


def test_mapped_tensors_are_nobody_elses(tmp_path):
    path = save_tensors(tmp_path / 'x.safetensors', TENSORS, {'kind': 'test'})
    (one, metadata), (two, _) = map_tensors(path), map_tensors(path)
    one['half'].zero_()
    assert metadata == {'kind': 'test'} and all(torch.equal(two[k], TENSORS[k]) for k in two)
    path.unlink()
    assert torch.equal(two['strided'], TENSORS['strided'])


def test_equal_content_gives_equal_bytes_and_no_litter(tmp_path):
    metadata = {k: k for k in 'abcdefg'}
    one = save_tensors(tmp_path / '1.safetensors', TENSORS, metadata)
    backwards = dict(reversed(TENSORS.items()))
    two = save_tensors(tmp_path / '2.safetensors', backwards, dict(reversed(metadata.items())))
    assert one.read_bytes() == two.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_tensors(tmp_path / 'x.safetensors', TENSORS)
    before = path.read_bytes()
    monkeypatch.setattr('mmprompt.common.checkpoint.tensor_bytes', lambda t: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_tensors(path, {'other': torch.ones(3)})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('fraction', [0.02, 0.5, 0.99])
def test_a_cut_file_is_called_cut(tmp_path, fraction):
    path = save_tensors(tmp_path / 'x.safetensors', {'a': torch.ones(100)})
    data = path.read_bytes()
    path.write_bytes(data[: max(9, int(len(data) * fraction))])
    with pytest.raises(UserError, match=r'x\.safetensors.*cut'):
        load_tensors(path)


@pytest.mark.parametrize(
    'data',
    [b'', b'abc', b'\x80\x02}q\x00.' * 40, struct.pack('<Q', 4) + b'{"a"', b'\x89PNG\r\n' * 9],
)
def test_another_file_is_refused(tmp_path, data):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(data)
    with pytest.raises(UserError, match='expected a safetensors file'):
        load_tensors(path)


def test_too_long_and_overlapping_are_refused(tmp_path):
    path = save_tensors(tmp_path / 'x.safetensors', {'a': torch.ones(4)})
    path.write_bytes(path.read_bytes() + b'more')
    with pytest.raises(UserError):
        load_tensors(path)
    header = {'a': {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 16]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + b'\0' * 16)
    with pytest.raises(UserError, match='damaged'):
        load_tensors(path)


def test_resolve_weights(tmp_path):
    with pytest.raises(UserError, match='mmprompt://nothing.*Shipped'):
        resolve_weights('mmprompt://nothing')
    with pytest.raises(UserError, match='found a folder'):
        resolve_weights(tmp_path)
    path = save_tensors(tmp_path / 'x.safetensors', TENSORS)
    assert resolve_weights(str(path)) == path


def test_fingerprint_follows_names_shapes_and_values():
    state = {'a': torch.ones(2, 3), 'b': torch.zeros(1)}
    same = {'b': torch.zeros(1, dtype=torch.float64), 'a': torch.ones(2, 3)}
    assert fingerprint(state) == fingerprint(same)
    others = [
        {'a': torch.ones(3, 2), 'b': torch.zeros(1)},
        {'c': torch.ones(2, 3), 'b': torch.zeros(1)},
        {'a': torch.ones(2, 3), 'b': torch.full((1,), 1e-7)},
    ]
    assert len({fingerprint(s) for s in [state, *others]}) == 4
