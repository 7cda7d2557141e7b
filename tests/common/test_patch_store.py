"""Stores of patches: what goes in comes out, whatever happens to processes and files."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import FORMAT
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from mmprompt.common.patches import PatchSet
from tests.patch_sets import FIELDS, META, assert_same, key_seed, patches_of, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / 'a.patches', ['a/1.png', '1.png', 'b/c/2.png'])


def test_what_goes_in_comes_out(tmp_path):
    full = np.ones((3, 5, 7), dtype=bool)
    full[1] = False
    sets = {
        'some/folder/x.png': patches_of(0),
        'none.png': PatchSet.from_rles([], (480, 640)),
        'pixel.png': PatchSet.from_masks(np.ones((1, 1, 1))),
        'full and empty.png': PatchSet.from_masks(full),
        'größe/日本.png': patches_of(1, size=(3, 99)),
    }
    with PatchStoreWriter(tmp_path / 'deep' / 'a.patches', META) as writer:
        for key, patches in sets.items():
            assert key not in writer
            writer.add(key, patches)
            assert key in writer
        assert len(writer) == 5
        path = writer.finish()
    assert os.listdir(path.parent) == ['a.patches']
    found = PatchStore(path)
    assert found.keys() == sorted(sets) and len(found) == 5
    for key, patches in sets.items():
        assert_same(found.get(key), patches)
    settings = dict(points=48, sizes=[1, 2])
    assert found.meta['settings'] == settings and found.meta['generator'] == 'toy'
    assert found.meta['images'] == 5 and found.meta['format'] == FORMAT
    assert len(found.meta['settings_hash']) == 16


def test_arrays_can_be_written_to(store):
    patches = PatchStore(store).get('1.png')
    for name in FIELDS:
        getattr(patches, name)[:] = 0
        assert not getattr(patches, name).any()


def test_find(store):
    found = PatchStore(store)
    assert found.find('/data/val/a/1.png') == 'a/1.png'
    assert found.find('/data/val/b/1.png') == '1.png'
    assert found.find('data\\val\\a\\1.png') == 'a/1.png'
    assert found.find('1.png') == '1.png'
    assert found.find('/b/c/2.png') == 'b/c/2.png'
    assert found.find('./x/../b/c/2.png') == 'b/c/2.png'
    for path in ('2.png', '/c/2.png', '/data/xa/11.png', '/', ''):  # no end is a key
        with pytest.raises(UserError, match=r'has no patches of .* holds 3 images'):
            found.find(path)
    assert 'a/1.png' in found and 'c/2.png' not in found and 7 not in found


def test_an_image_that_is_not_there(store):
    with pytest.raises(UserError, match=r"a\.patches has no patches of 'zz'.*generate_patches"):
        PatchStore(store).get('zz')


@pytest.mark.parametrize('key', ['', '/a.png', 'a\\b.png', './a.png', 'a//b.png', '../a.png', 'a/'])
def test_keys_are_relative_paths(tmp_path, key):
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        with pytest.raises(UserError, match='cannot be the key'):
            writer.add(key, patches_of(0))
        assert len(writer) == 0


def test_an_image_is_written_once(tmp_path):
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        writer.add('x.png', patches_of(0))
        with pytest.raises(UserError, match=r"patches of 'x.png' already"):
            writer.add('x.png', patches_of(1))
        writer.add('y.png', patches_of(2))
        path = writer.finish()
    assert_same(PatchStore(path).get('x.png'), patches_of(0))


def test_nothing_is_opened_before_it_is_asked(tmp_path, store):
    later = PatchStore(tmp_path / 'later')
    assert 'later' in repr(later)
    shutil.copy(store, tmp_path / 'later')
    assert len(later) == 3


def test_a_run_goes_on(tmp_path):
    write(tmp_path / 'a', ['x.png', 'y.png'], finish=False)
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        assert 'x.png' in writer and len(writer) == 2 and not writer.finished
        writer.add('z.png', patches_of(0))
        writer.finish()
    with PatchStoreWriter(tmp_path / 'a', META) as writer:  # and is not made twice
        assert writer.finished and 'z.png' in writer and len(writer) == 3
        assert writer.finish() == tmp_path / 'a'
        with pytest.raises(UserError, match='is finished'):
            writer.add('w.png', patches_of(0))
    assert len(PatchStore(tmp_path / 'a')) == 3


@pytest.mark.parametrize('finish', [True, False])
def test_other_settings_are_refused(tmp_path, finish):
    write(tmp_path / 'a', ['x.png'], finish=finish)
    other = dict(META, generator='sam', settings=dict(points=32, sizes=(1, 2), crops=1))
    said = r'generator is .toy. there and .sam. here; settings.crops is .nothing. there and 1 here;'
    with pytest.raises(UserError, match=said + ' settings.points is 48 there and 32 here'):
        PatchStoreWriter(tmp_path / 'a', other)
    with pytest.raises(UserError, match='dataset is'):
        PatchStoreWriter(tmp_path / 'a', dict(META, dataset='coco'))
    assert len(PatchStoreWriter(tmp_path / 'a', META)) == 1


def test_meta_data_must_say_how(tmp_path):
    with pytest.raises(ValueError, match='settings'):
        PatchStoreWriter(tmp_path / 'a', dict(generator='x'))
    with pytest.raises(ValueError, match='images'):
        PatchStoreWriter(tmp_path / 'a', dict(META, images=3))


def test_two_cannot_write_one_file(tmp_path):
    with PatchStoreWriter(tmp_path / 'a', META):
        with pytest.raises(UserError, match='another process is writing'):
            PatchStoreWriter(tmp_path / 'a', META)
    assert len(PatchStoreWriter(tmp_path / 'a', META)) == 0


def _keep_adding(path, seconds):
    end, number = time.monotonic() + seconds, 0
    with PatchStoreWriter(path, META) as writer:
        while time.monotonic() < end:
            key = f'{number}.png'
            number += 1
            if key not in writer:
                writer.add(key, patches_of(key_seed(key)))


def test_killed_again_and_again(tmp_path):
    context, counts = multiprocessing.get_context('fork'), [0]
    for wait in (0.02, 0.05, 0.1, 0.15, 0.2):
        process = context.Process(target=_keep_adding, args=(tmp_path / 'a', 60))
        process.start()
        while not (tmp_path / 'a.part').exists():
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with PatchStoreWriter(tmp_path / 'a', META) as writer:
            counts.append(len(writer))
        assert counts[-1] >= counts[-2]
    assert counts[-1] > 0
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        path = writer.finish()
    store = PatchStore(path)
    assert sorted(store.keys()) == sorted(f'{i}.png' for i in range(counts[-1]))
    for key in store.keys():
        assert_same(store.get(key), patches_of(key_seed(key)))


def _die_in_a_transaction(path):
    writer = PatchStoreWriter(path, META)
    writer.add('whole.png', patches_of(1))
    execute = writer._connection.execute
    execute('PRAGMA cache_size = 1')  # so that half of the image reaches the file
    execute('BEGIN')
    for i in range(20):
        row = (f'half{i}.png', 1, 1, 0, os.urandom(200_000))
        execute('INSERT INTO patches VALUES (?, ?, ?, ?, ?, NULL)', row)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_the_middle_of_an_image(tmp_path):
    context = multiprocessing.get_context('fork')
    process = context.Process(target=_die_in_a_transaction, args=(tmp_path / 'a',))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / 'a.part').stat().st_size > 1_000_000  # half an image is in the file
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        assert len(writer) == 1 and 'whole.png' in writer
        writer.add('half0.png', patches_of(2))
        path = writer.finish()
    assert os.listdir(tmp_path) == ['a']
    store = PatchStore(path)
    assert_same(store.get('whole.png'), patches_of(1))
    assert_same(store.get('half0.png'), patches_of(2))


def test_an_image_is_safe_as_soon_as_it_is_added(tmp_path):
    code = """
        import numpy as np, sys
        from mmprompt.common.patches import PatchSet
        from mmprompt.common.patch_store import PatchStoreWriter
        writer = PatchStoreWriter(sys.argv[1], dict(generator='toy', settings={}))
        for i in range(10**6):
            writer.add(f'{i}.png', PatchSet.from_masks(np.ones((50, 60, 80), bool)))
            print(i, flush=True)
    """
    command = [sys.executable, '-c', textwrap.dedent(code), str(tmp_path / 'a')]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 5:
                process.kill()
        told = int(line)  # the last that it said before it died
    assert process.returncode == -signal.SIGKILL
    with PatchStoreWriter(tmp_path / 'a', dict(generator='toy', settings={})) as writer:
        assert len(writer) in (told + 1, told + 2)
        assert len(PatchStore(writer.finish()).get('5.png')) == 50


@pytest.mark.parametrize(('method', 'workers'), [('fork', 4), ('spawn', 1)])
def test_workers(store, method, workers):
    opened = PatchStore(store)
    keys = opened.keys()
    expected = [opened.get(key) for key in keys]  # open in the parent, before it forks
    with multiprocessing.get_context(method).Pool(workers) as pool:
        for found, other in zip(pool.map(opened.get, keys * 20, chunksize=1), expected * 20):
            assert_same(found, other)
    assert_same(opened.get(keys[0]), expected[0])


def test_threads(store):
    opened, wrong = PatchStore(store), []

    def read():
        for _ in range(30):
            if opened.get('1.png').rles != patches_of(key_seed('1.png')).rles:
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_store_travels(store):
    opened = PatchStore(store)
    assert len(opened) == 3
    assert_same(pickle.loads(pickle.dumps(opened)).get('1.png'), opened.get('1.png'))


def test_a_store_on_a_read_only_disk(tmp_path, store):
    folder = tmp_path / 'fixed'
    folder.mkdir()
    shutil.copy(store, folder / 'a b%20?#.patches')
    folder.chmod(0o500)
    try:
        assert len(PatchStore(folder / 'a b%20?#.patches')) == 3
    finally:
        folder.chmod(0o700)
    assert len(os.listdir(folder)) == 1


def test_access_takes_less_than_a_millisecond(tmp_path):
    rng = np.random.default_rng(0)
    masks = np.zeros((300, 480, 640), dtype=bool)
    for mask, (y, x) in zip(masks, rng.integers(0, 400, (300, 2))):
        mask[y : y + 60, x : x + 80] = rng.random((60, 80))[: 480 - y] < 0.9
    with PatchStoreWriter(tmp_path / 'a', META) as writer:
        for i in range(3):
            writer.add(f'{i}.png', PatchSet.from_masks(masks))
        store = PatchStore(writer.finish())
    seconds = []
    for i in range(30):
        begin = time.process_time()
        store.get(store.find(f'/data/images/val/{i % 3}.png'))
        seconds.append(time.process_time() - begin)
    assert np.median(seconds) < 1e-3
