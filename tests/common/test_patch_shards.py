"""Several files that are one store."""

import os

import pytest

from mmprompt.common.errors import UserError
from mmprompt.common.patch_merge import merge_stores
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from tests.patch_sets import META, assert_same, key_seed, patches_of, write


def test_shards(tmp_path):
    meta = [dict(META, shard=f'{i}/2') for i in (1, 2)]
    paths = [
        write(tmp_path / 't.1.patches', ['a/1.png', 'a/2.png'], meta[0]),
        write(tmp_path / 't.2.patches', ['b/1.png'], meta[1]),
    ]
    for given in (paths, str(tmp_path / 't.*.patches'), [str(paths[0]), str(paths[1])]):
        store = PatchStore(given)
        assert store.keys() == ['a/1.png', 'a/2.png', 'b/1.png'] and len(store) == 3
        assert_same(store.get('b/1.png'), patches_of(key_seed('b/1.png')))
        assert store.find('/x/b/1.png') == 'b/1.png' and 'b/2.png' not in store
        assert store.meta['images'] == 3 and 'shard' not in store.meta
        assert store.meta['dataset'] == 'none'
        with pytest.raises(UserError, match="store of 2 files .* has no patches of 'c'"):
            store.get('c')


def test_shards_that_do_not_go_together(tmp_path):
    one = write(tmp_path / '1', ['a.png'])
    other = write(tmp_path / '2', ['b.png'], dict(META, settings=dict(points=32, sizes=(1, 2))))
    with pytest.raises(UserError, match='other settings: settings.points is 48 there and 32 here'):
        PatchStore([one, other]).keys()
    twice = write(tmp_path / '3', ['c.png', 'a.png'])
    with pytest.raises(UserError, match="1 and .*3 both have patches of 'a.png'"):
        PatchStore([one, twice]).keys()


def test_merge(tmp_path):
    meta = [dict(META, shard=i) for i in range(3)]
    keys = [[f'{i}/{j}.png' for j in range(i * 3)] for i in range(3)]  # one has no images
    for i in range(3):
        write(tmp_path / f't.{i}.patches', keys[i], meta[i])
    shards, out = str(tmp_path / 't.*.patches'), tmp_path / 't.all.patches'
    with PatchStoreWriter(out, META) as writer:  # a merge that was killed
        writer.add(keys[2][4], patches_of(key_seed(keys[2][4])))
    assert merge_stores(shards, out) == out == merge_stores(shards, out)
    store = PatchStore(out)
    assert store.keys() == sorted(sum(keys, [])) and len(os.listdir(tmp_path)) == 4
    assert store.meta == {**PatchStore([tmp_path / f't.{i}.patches' for i in range(3)]).meta}
    for key in store.keys():
        assert_same(store.get(key), patches_of(key_seed(key)))
