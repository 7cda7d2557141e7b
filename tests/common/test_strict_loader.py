import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmprompt.common.errors import UserError
from mmprompt.common.strict_loader import from_plain, install_strict_loader, load_strict, to_plain


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def schemes():
    before = dict(CheckpointLoader._schemes)
    install_strict_loader()
    yield
    CheckpointLoader._schemes.clear()
    CheckpointLoader._schemes.update(before)


def _history():
    buffer = HistoryBuffer()
    for value in (1.0, 0.5, 0.1):
        buffer.update(value)
    return buffer


def test_plain_round_trip(tmp_path):
    value = {
        'state_dict': OrderedDict(a=torch.ones(2)),
        'hub': {'loss': _history(), 'best': np.float32(0.5), 'seed': 2**40, 'nothing': None},
        'meta': {'palette': np.eye(3, dtype=np.uint8), 'ids': {3, 1}, 'pair': (1, 'x')},
    }
    path = tmp_path / 'x.pth'
    torch.save(to_plain(value), path)
    torch.load(path, weights_only=True)
    loaded = load_strict(path)
    assert torch.equal(loaded['state_dict']['a'], torch.ones(2))
    assert loaded['hub']['loss'].data[0].tolist() == [1.0, 0.5, 0.1]
    loaded['hub']['loss'].update(0.0)
    assert loaded['hub']['best'] == 0.5 and loaded['hub']['seed'] == 2**40
    assert loaded['hub']['nothing'] is None
    assert (loaded['meta']['palette'] == np.eye(3)).all()
    assert loaded['meta']['palette'].dtype == np.uint8
    assert loaded['meta']['ids'] == {1, 3} and loaded['meta']['pair'] == (1, 'x')


def test_what_cannot_be_kept_is_left_out():
    assert to_plain({'a': 1, 'f': print, 'n': None}) == {'a': 1, 'n': None}
    assert from_plain(to_plain([1, (2, 3)])) == [1, (2, 3)]


@pytest.mark.parametrize('legacy', [False, True])
def test_other_peoples_histories_and_numpy_are_read(tmp_path, legacy):
    value = {
        'state_dict': OrderedDict(w=torch.randn(3), p=torch.nn.Parameter(torch.ones(1))),
        'message_hub': {'loss': _history()},
        'meta': {'acc': np.float64(0.3), 'ids': np.arange(3), 'config': 'import os'},
    }
    path = tmp_path / 'x.pth'
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_strict(path)
    assert torch.equal(loaded['state_dict']['w'], value['state_dict']['w'])
    assert loaded['message_hub']['loss'].mean() == pytest.approx(1.6 / 3)
    assert loaded['meta']['ids'].tolist() == [0, 1, 2]
    assert 'config' not in loaded['meta'], 'mmengine would execute it on resume'


@pytest.mark.parametrize('how', ['zip', 'legacy', 'bare', 'numpy', 'getattr'])
def test_nothing_hostile_is_executed(tmp_path, schemes, how):
    marker = tmp_path / 'executed'
    path = tmp_path / 'x.pth'
    bad = {'state_dict': {}, 'x': Hostile(marker)}
    if how == 'numpy':
        bad['x'] = np.array([Hostile(marker)], dtype=object)
    if how == 'getattr':
        bad['x'] = pickle.PicklingError.__init__  # pickles as a getattr call
    if how == 'bare':
        path.write_bytes(pickle.dumps(bad))
    else:
        torch.save(bad, path, _use_new_zipfile_serialization=how != 'legacy')
    for load in (load_strict, lambda p: load_checkpoint(torch.nn.Identity(), str(p))):
        with pytest.raises(UserError, match=r'x\.pth.*executed|x\.pth.*damaged'):
            load(path)
        assert not marker.exists()


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': {'a': torch.ones(1000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match='cut'):
        load_strict(path)
    for other in (b'', b'hello world', b'{}'):
        path.write_bytes(other)
        with pytest.raises(UserError, match=r'x\.pth'):
            load_strict(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match='found list'):
        load_strict(path)
    with pytest.raises(UserError, match='no such file'):
        load_strict(tmp_path / 'y.pth')


def test_private_storages_and_unknown_models_are_refused(schemes):
    for address in ('s3://bucket/x.pth', 'pavi://x', 'open-mmlab://no-such-model'):
        with pytest.raises(UserError, match='Give a path|give its path'):
            CheckpointLoader.load_checkpoint(address)


def test_weights_of_the_package_are_found_by_name(schemes):
    shipped = CheckpointLoader.load_checkpoint('mmprompt://seem-nano_streets')
    assert any(name.startswith('backbone.') for name in shipped)
    with pytest.raises(UserError, match='mmprompt ships no weights of that name'):
        CheckpointLoader.load_checkpoint('mmprompt://seem-micro')
