"""Plain data comes back as it was; nothing else is executed, as files that would tell show."""

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mmprompt.common.errors import UserError
from mmprompt.common.safe_pickle import read_pickle


def written(path: Path, value, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back(tmp_path, protocol):
    value = OrderedDict(
        indexes='000000000009',
        boxes=np.arange(12, dtype=np.float32).reshape(3, 4),
        turned=np.asfortranarray(np.arange(6).reshape(2, 3)),
        swapped=np.array([1, 2, 300], dtype='>i4'),
        flags=np.array([True, False]),
        empty=np.zeros((0, 4)),
        segmentations=[dict(size=(4, 5), counts=b'\x00\xff12'), dict(size=[4, 5], counts='abc')],
        scores=[np.float32(0.5), 0.25, np.int64(3)],
        nothing=None,
    )
    found = read_pickle(written(tmp_path / 'a.pkl', value, protocol))
    assert list(found) == list(value)
    for key in ('boxes', 'turned', 'swapped', 'flags', 'empty'):
        assert np.array_equal(found[key], value[key]) and found[key].shape == value[key].shape
        assert found[key].dtype == value[key].dtype.newbyteorder('=')
    for key in ('indexes', 'segmentations', 'scores', 'nothing'):
        assert found[key] == value[key]


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


def test_no_call_is_made(tmp_path):
    trace = tmp_path / 'trace'
    calls = [
        Call(os.system, f'touch {trace}'),
        Call(eval, f'open({str(trace)!r}, "w")'),
        Call(Path.touch, trace),
        Call(np.save, str(trace), np.zeros(1)),
        Call(np.fromfile, str(tmp_path / 'a.pkl')),
    ]
    for call in calls:
        path = written(tmp_path / 'a.pkl', dict(boxes=[call]))
        with pytest.raises(UserError, match=r'a\.pkl: .* is not loaded since it could run code'):
            read_pickle(path)
        assert not list(tmp_path.glob('trace*'))


@pytest.mark.parametrize(
    ('value', 'said'),
    [
        (np.array([{}, []], dtype=object), "array of 'O8'"),
        (np.zeros(2, dtype=[('a', 'i4')]), "array of 'V4'"),
        (np.array(['text']), "array of 'U4'"),
        (np.ma.masked_array([1, 2], [0, 1]), 'numpy.ma'),
        (torch.zeros(2), 'torch'),
        ({1, 2}, 'builtins.set|__builtin__.set'),
        (Path('x'), 'pathlib'),
        (Call(getattr, [], 'append'), 'getattr'),
    ],
)
def test_other_objects_are_named(tmp_path, value, said):
    with pytest.raises(UserError, match=said):
        read_pickle(written(tmp_path / 'a.pkl', [value], 2))


def test_forged_dtypes_are_not_believed(tmp_path):
    """Fields of objects in a dtype that says it has none would make numbers into pointers."""
    array = np.arange(2)
    kind, args, (version, shape, _, fortran, raw) = array.__reduce__()

    class Forged:
        def __reduce__(self):
            state = (3, '|', None, ('a',), dict(a=(np.dtype('O'), 0)), 8, 1, 0)
            return np.dtype, ('i8', False, True), state

    class Array:
        def __reduce__(self):
            return kind, args, (version, shape, Forged(), fortran, raw)

    for state in (Array(), Forged()):
        with pytest.raises(UserError, match="array of (records|'O8')"):
            read_pickle(written(tmp_path / 'a.pkl', state))


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_torch_are_explained(tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save(dict(bbox=torch.zeros(2)), buffer, _use_new_zipfile_serialization=zipped)
    (tmp_path / 'a.pkl').write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r'file of torch\.save\. The overlaps of SAM-CP'):
        read_pickle(tmp_path / 'a.pkl')


def test_cut_and_foreign_files_are_refused(tmp_path):
    whole = pickle.dumps(dict(boxes=np.zeros((5, 4)), rest=list(range(99))))
    for content in (whole[: len(whole) // 2], whole[:-1], b'', b'{"json": 1}', b'\x80\x04.'):
        (tmp_path / 'a.pkl').write_bytes(content)
        with pytest.raises(UserError, match=r'a\.pkl: expected a whole pickle'):
            read_pickle(tmp_path / 'a.pkl')
    with pytest.raises(UserError, match='No such file'):
        read_pickle(tmp_path / 'b.pkl')
