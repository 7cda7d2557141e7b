"""Files that are no store of patches, or no longer."""

import json
import os
import shutil
import sqlite3

import numpy as np
import pytest

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import APPLICATION, FORMAT, pack
from mmprompt.common.patch_merge import merge_stores
from mmprompt.common.patch_shards import complete_meta
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from tests.patch_sets import META, assert_same, key_seed, patches_of, write


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / 'a.patches', ['a/1.png', '1.png', 'b/c/2.png'])


def test_unfinished_stores_are_not_read(tmp_path):
    part = write(tmp_path / 'a', ['x.png'], finish=False)
    for path in (tmp_path / 'a', part, str(tmp_path / '*'), str(tmp_path / 'a*')):
        with pytest.raises(UserError, match='is not finished. Run the command'):
            PatchStore(path).keys()
    shutil.copy(part, tmp_path / 'b')  # renamed by hand
    with pytest.raises(UserError, match='b is a patch store that is not finished'):
        PatchStore(tmp_path / 'b').keys()


def test_missing_stores(tmp_path):
    with pytest.raises(UserError, match='nowhere does not exist.*generate_patches'):
        PatchStore(tmp_path / 'nowhere').keys()
    with pytest.raises(UserError, match='is a folder'):
        PatchStore(tmp_path).keys()
    with pytest.raises(UserError, match='no patch store is called'):
        PatchStore(str(tmp_path / 'x*')).keys()
    with pytest.raises(UserError, match='of no files'):
        PatchStore([]).keys()


def test_foreign_files(tmp_path, store):
    (tmp_path / 'text').write_text('hello')
    (tmp_path / 'empty').write_bytes(b'')
    with sqlite3.connect(tmp_path / 'other.db') as connection:
        connection.execute('CREATE TABLE meta (name, value)')
    connection.close()
    newer = tmp_path / 'newer'
    shutil.copy(store, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute(f'PRAGMA user_version = {FORMAT + 1}')
    connection.close()
    for name, reason in [
        ('text', "is no patch store: it begins with b'hello'"),
        ('empty', 'is no patch store'),
        ('other.db', 'is an SQLite file of another program'),
        ('newer', f'of format {FORMAT + 1}; this program reads up to {FORMAT}'),
    ]:
        with pytest.raises(UserError, match=f'{name} .*{reason}'):
            PatchStore(tmp_path / name).keys()
        with pytest.raises(UserError):
            PatchStoreWriter(tmp_path / name, META)
    for name in ('text', 'other.db'):
        shutil.copy(tmp_path / name, tmp_path / f'{name}2.part')
        with pytest.raises(UserError, match='unfinished patch store|another program'):
            PatchStoreWriter(tmp_path / f'{name}2', META)


def test_cut_files(tmp_path, store):
    whole = store.read_bytes()
    for size in (50, 4096, len(whole) // 2, len(whole) - 1):
        (tmp_path / 'cut').write_bytes(whole[:size])
        with pytest.raises(UserError, match='cut: it has|is no patch store'):
            PatchStore(tmp_path / 'cut').keys()
    write(tmp_path / 'b', ['x.png', 'y.png', 'z.png'], finish=False)
    part = tmp_path / 'b.part'
    part.write_bytes(part.read_bytes()[:-4096])
    with pytest.raises(UserError, match=r'b\.part'):
        PatchStoreWriter(tmp_path / 'b', META)


def test_no_changed_byte_is_believed(tmp_path):
    """Wherever a byte changes: the same patches, or a reason; never other patches."""
    keys = [f'{i}.png' for i in range(3)]
    store = write(tmp_path / 'a', keys)
    whole, rng = bytearray(store.read_bytes()), np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        (tmp_path / 'b').write_bytes(changed)
        for key in keys:
            try:
                found = PatchStore(tmp_path / 'b').get(key)
            except UserError as reason:
                assert str(tmp_path / 'b') in str(reason)
                refused += 1
            else:
                assert_same(found, patches_of(key_seed(key)))
    assert refused > 10


def old_store(path, keys, finish=True):
    """As `write`, in format 1, which knew no digests."""
    part = path.with_name(path.name + '.part')
    with sqlite3.connect(part) as connection:
        connection.execute('CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)')
        connection.execute(
            'CREATE TABLE patches (key TEXT PRIMARY KEY, height INTEGER NOT NULL, width INTEGER '
            'NOT NULL, count INTEGER NOT NULL, data BLOB NOT NULL)'
        )
        connection.execute(f'PRAGMA application_id = {APPLICATION}')
        connection.execute('PRAGMA user_version = 1')
        meta = {**complete_meta(META), 'format': 1, **({'images': len(keys)} if finish else {})}
        rows = [(name, json.dumps(value)) for name, value in meta.items()]
        connection.executemany('INSERT INTO meta VALUES (?, ?)', rows)
        for key in keys:
            row = (key, 20, 30, 4, pack(patches_of(key_seed(key))))
            connection.execute('INSERT INTO patches VALUES (?, ?, ?, ?, ?)', row)
    connection.close()
    return part.rename(path) if finish else part


def test_stores_of_the_first_format_are_read_and_gone_on_with(tmp_path):
    old = PatchStore(old_store(tmp_path / 'old', ['x.png']))
    assert_same(old.get('x.png'), patches_of(key_seed('x.png')))
    assert old.digest('x.png') is None and old.find('/a/x.png') == 'x.png'
    with PatchStoreWriter(tmp_path / 'old', META) as writer:
        assert writer.finished and 'x.png' in writer and writer.digest('x.png') is None
    old_store(tmp_path / 'new', ['y.png'], finish=False)
    with PatchStoreWriter(tmp_path / 'new', META) as writer:
        assert writer.digest('y.png') is None
        writer.add('z.png', patches_of(key_seed('z.png')), 7)
        new = PatchStore(writer.finish())
    assert new.digest('y.png') is None and new.digest('z.png') == 7
    assert_same(new.get('y.png'), patches_of(key_seed('y.png')))
    assert new.meta['format'] == FORMAT
    both = PatchStore([tmp_path / 'old', tmp_path / 'new'])
    assert [both.digest(key) for key in both.keys()] == [None, None, 7]
    merged = PatchStore(merge_stores([tmp_path / 'old', tmp_path / 'new'], tmp_path / 'all'))
    assert [merged.digest(key) for key in both.keys()] == [None, None, 7]


def test_a_finished_store_is_replaced_as_a_whole(tmp_path):
    path = write(tmp_path / 'a', ['x.png', 'y.png'])
    reader = PatchStore(path)
    assert reader.digest('y.png') is None and reader.digest('none') is None
    with PatchStoreWriter(path, META) as writer:
        writer.reopen()
        writer.forget(['y.png'])
        assert 'x.png' in writer and 'y.png' not in writer
    with PatchStoreWriter(path, META) as writer:  # killed; the finished store is still there
        assert writer.finished and 'y.png' in writer
        writer.reopen()
        assert 'y.png' not in writer
        writer.add('y.png', patches_of(5), 2**32 - 1)
        assert writer.finish() == path
    assert_same(reader.get('y.png'), patches_of(key_seed('y.png')))  # who had it open goes on
    assert_same(PatchStore(path).get('y.png'), patches_of(5))
    assert PatchStore(path).digest('y.png') == 2**32 - 1 and os.listdir(tmp_path) == ['a']
