"""``tools/generate_patches.py``: resumed, in shards, from configs and folders, and its refusals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmprompt.apis.patches import generate as generate_patches
from mmprompt.apis.patches.generate import Progress, main
from mmprompt.apis.patches.images import images_of_config, images_of_folder
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.patches import PatchSet
from mmprompt.foundation.patch_generators import PatchGenerator
from mmprompt.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
NUMBER = 9


@MODELS.register_module()
class HalvesPatches(PatchGenerator):
    """The bright and the dark pixels; `wait` seconds each image, which decides nothing."""

    name = 'halves'

    def __init__(self, level: int = 128, wait: float = 0.0) -> None:
        self.level, self.wait = level, wait

    def settings(self):
        return dict(level=self.level)

    def __call__(self, image):
        time.sleep(self.wait)
        bright = image.mean(2) > self.level
        return PatchSet.from_masks(np.stack([bright, ~bright]))


def write_images(folder: Path, number: int = NUMBER) -> Path:
    random = np.random.default_rng(0)
    for i in range(number):
        path = folder / f'city{i % 2}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (12, 16, 3)).astype(np.uint8)).save(path)
    return folder


def write_config(folder: Path, **more) -> Path:
    """A dataset in the folders of MMSegmentation, for all three splits."""
    images = write_images(folder / 'data/images')
    for path in images.rglob('*.png'):
        label = folder / 'data/labels' / path.relative_to(images)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((12, 16), np.uint8)).save(label)
    dataset = dict(
        type='FolderDataset',
        data_root=str(folder / 'data'),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=['road']),
        pipeline=[],
    )
    loader = dict(dataset=dataset, batch_size=1, num_workers=0)
    path = folder / 'config.py'
    Config(dict(train_dataloader=loader, val_dataloader=loader, **more)).dump(path)
    return path


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / 'images')


def run(images, out, *more):
    given = ['--images', images, '--generator', 'HalvesPatches', '--out', out, *more]
    return main([str(each) for each in given])


def same(first: Path, second: Path) -> bool:
    a, b = PatchStore(first), PatchStore(second)
    alike = a.meta == b.meta and a.keys() == b.keys()
    return alike and all(
        a.packed(key) == b.packed(key) and a.digest(key) == b.digest(key) for key in a.keys()
    )


def test_a_folder_becomes_a_store(images, tmp_path, capsys):
    assert run(images, tmp_path / 'a.db') == 0
    store = PatchStore(tmp_path / 'a.db')
    assert store.keys() == sorted(f'city{i % 2}/{i}.png' for i in range(NUMBER))
    assert store.meta['generator'] == 'halves' and store.meta['settings'] == dict(level=128)
    pixels = np.asarray(Image.open(images / 'city1/3.png')).mean(2)
    assert (store.get('city1/3.png').decode()[0] == (pixels > 128)).all()
    assert f'{NUMBER} of them new' in capsys.readouterr().out
    assert run(images, tmp_path / 'a.db') == 0
    assert '0 of them new' in capsys.readouterr().out


def test_killed_and_run_again(images, tmp_path):
    """A kill -9 in the middle; the next run makes what was missing and nothing twice."""
    code = (
        f'import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n'
        'import test_generate as t\n'
        "t.run(sys.argv[1], sys.argv[2], '--options', 'wait=0.3')"
    )
    out = tmp_path / 'a.db'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])}
    process = subprocess.Popen(
        [sys.executable, '-c', code, str(images), str(out)],
        env=environment,
        stderr=subprocess.PIPE,
    )
    part, deadline = tmp_path / 'a.db.part', time.monotonic() + 120
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert part.exists() and not out.exists()
    with pytest.raises(UserError, match='not finished'):
        PatchStore(part).keys()
    made = []
    call = HalvesPatches.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HalvesPatches, '__call__', lambda s, i: made.append(i) or call(s, i))
        assert run(images, out) == 0
    assert 0 < len(made) < NUMBER
    assert run(images, tmp_path / 'b.db') == 0 and same(out, tmp_path / 'b.db')


def test_other_settings_do_not_go_on(images, tmp_path, capsys):
    run(images, tmp_path / 'a.db')
    assert run(images, tmp_path / 'a.db', '--options', 'level=3') == 2
    assert 'level' in capsys.readouterr().err


def test_shards_are_one_run(images, tmp_path, capsys):
    run(images, tmp_path / 'whole.db')
    out = tmp_path / 'a.db'
    for i in (1, 3):
        assert run(images, out, '--shard', f'{i}/3') == 0
    assert main(['--merge', str(out)]) == 2
    assert 'missing or unfinished' in capsys.readouterr().err
    parts = PatchStore(str(tmp_path / 'a.*-of-3.db'))
    assert len(parts.keys()) == 6
    assert run(images, out, '--shard', '2/3') == 0  # the last one merges
    assert same(out, tmp_path / 'whole.db')
    assert not list(tmp_path.glob('a.*-of-*'))
    assert run(images, out, '--shard', '1/3') == 0
    assert f'{NUMBER} images, 0 of them new' in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize('moment', ['settings', 'opening'])
def test_shards_that_others_merge_meanwhile_are_not_made_again(
    images, tmp_path, capsys, monkeypatch, moment
):
    out, merge, place = (
        tmp_path / 'a.db',
        generate_patches.merge_shards,
        generate_patches.shard_path,
    )
    with monkeypatch.context() as patch:  # as if both were killed before they merged
        patch.setattr(generate_patches, 'merge_shards', lambda out: refuse())
        assert run(images, out, '--shard', '1/2') == run(images, out, '--shard', '2/2') == 0
    assert not out.exists() and len(list(tmp_path.glob('a.*-of-2.db'))) == 2

    def then(value):
        monkeypatch.setattr(generate_patches, 'shard_path', place)
        if not out.exists():
            merge(out)
        return value

    if moment == 'settings':
        monkeypatch.setattr(HalvesPatches, 'settings', lambda self: then(dict(level=128)))
    else:
        monkeypatch.setattr(generate_patches, 'shard_path', lambda *given: then(place(*given)))
    assert run(images, out, '--shard', '1/2') == 0
    assert f'a.db: {NUMBER} images, 0 of them new' in capsys.readouterr().out.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.glob('a.*')) == ['a.db']


def refuse():
    raise UserError('not now')


def repaint(path, value):
    Image.new('RGB', (16, 12), (value, value, value)).save(path)


@pytest.mark.parametrize('finished', [True, False])
def test_images_that_are_others_now_are_made_anew(images, tmp_path, capsys, finished):
    out, changed = tmp_path / 'a.db', [images / f'city0/{i}.png' for i in (2, 4)]
    last = images / 'city1/7.png'
    whole = last.read_bytes()
    if not finished:
        last.write_bytes(b'')
    assert run(images, out) == (0 if finished else 2)
    last.write_bytes(whole)
    if finished:
        assert PatchStore(out).digest('city0/2.png') == image_digest(changed[0])
    for path in changed:
        repaint(path, 200)
    if finished:
        assert run(images, out, '--shard', '1/2') == 2  # several would write one file
        assert 'in one process' in capsys.readouterr().err
    assert run(images, out) == 0
    new = 2 if finished else 3
    said = f'{NUMBER} images, {new} of them new, 2 because the image is another now'
    assert said in capsys.readouterr().out
    assert run(images, tmp_path / 'b.db') == 0 and same(out, tmp_path / 'b.db')
    assert PatchStore(out).get('city0/4.png').areas.tolist() == [12 * 16, 0]
    assert run(images, out) == 0 and '0 of them new (' in capsys.readouterr().out


def test_images_of_another_split_do_not_go_on(images, tmp_path, capsys):
    out, other = tmp_path / 'a.db', write_images(tmp_path / 'other')
    run(images, out)
    before = out.read_bytes()
    for i, path in enumerate(other.rglob('*.png')):
        repaint(path, i)
    assert run(other, out) == 2
    assert f'for all {NUMBER} of them' in capsys.readouterr().err and out.read_bytes() == before


def test_torchrun_shards_by_itself(images, tmp_path):
    run(images, tmp_path / 'whole.db')
    code = (
        f'import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n'
        'import test_generate as t\n'
        'sys.exit(t.run(sys.argv[1], sys.argv[2]))'
    )
    (tmp_path / 'start.py').write_text(code)
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]),
        'OMP_NUM_THREADS': '1',
    }
    done = subprocess.run(
        [sys.executable, *command, 'start.py', str(images), str(tmp_path / 'a.db')],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if not (tmp_path / 'a.db').exists():  # both were ready in the same moment
        assert main(['--merge', str(tmp_path / 'a.db')]) == 0
    assert same(tmp_path / 'a.db', tmp_path / 'whole.db')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_of_a_config(tmp_path, split, capsys):
    config = write_config(tmp_path, patch_generator=dict(type='HalvesPatches', level=50))
    out = tmp_path / 'a.db'
    assert main([str(config), '--split', split, '--out', str(out)]) == 0
    store = PatchStore(out)
    assert len(store.keys()) == NUMBER and store.meta['settings'] == dict(level=50)
    image = tmp_path / 'data/images/city0/2.png'
    assert store.find(image) == 'city0/2.png'
    assert main([str(config), '--split', 'test', '--out', str(out)]) == 2
    assert 'Splits of this config: train, val' in capsys.readouterr().err


def test_wrappers_and_several_folders(tmp_path):
    write_config(tmp_path / 'a'), write_config(tmp_path / 'b')
    nodes = [
        Config.fromfile(tmp_path / n / 'config.py').train_dataloader.dataset for n in ('a', 'b')
    ]
    repeated = dict(type='RepeatDataset', times=2, dataset=nodes[0])
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(type='GuardedDataset', dataset=repeated)),
            val_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=nodes)),
        )
    )
    assert [p.key for p in images_of_config(cfg, 'train')][:2] == ['city0/0.png', 'city0/2.png']
    keys = [p.key for p in images_of_config(cfg, 'val')]
    assert len(set(keys)) == 2 * NUMBER and keys[0] == 'a/data/images/city0/0.png'


def test_an_image_that_cannot_be_read_is_named(images, tmp_path, capsys):
    bad = images / 'city0/4.png'
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    assert run(images, tmp_path / 'a.db') == 2
    error = capsys.readouterr().err
    assert str(bad) in error and 'same command' in error
    bad.write_bytes(whole)
    assert run(images, tmp_path / 'a.db') == 0
    assert '1 of them new' in capsys.readouterr().out


def test_images_that_came_later(images, tmp_path, capsys):
    run(images, tmp_path / 'a.db')
    Image.new('RGB', (16, 12)).save(images / 'late.png')
    assert run(images, tmp_path / 'a.db') == 2
    assert 'lacks 1, among them late.png' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (['--shard', '0/2'], 'expected i/n'),
        (['--shard', '3/2'], 'expected i/n'),
        (['--generator', 'LoadPatches'], 'felzenszwalb'),
        (['--generator', 'felzenszwalb', '--points-per-side', '9'], 'takes no points_per_side'),
        (['--images', '/nowhere'], 'no such folder'),
    ],
)
def test_what_cannot_be_meant(images, tmp_path, capsys, given, said):
    assert run(images, tmp_path / 'a.db', *given) == 2
    assert said in capsys.readouterr().err


def test_one_source_and_a_generator(tmp_path, images, capsys):
    for given in ([], ['x.py', '--images', str(images)]):
        with pytest.raises(SystemExit):
            main(given)
    assert main(['--images', str(images)]) == 2
    assert 'patch_generator' in capsys.readouterr().err
    (tmp_path / 'none').mkdir()
    with pytest.raises(UserError, match='expected a folder of images'):
        images_of_folder(tmp_path / 'none')


def test_progress_says_how_far_and_how_fast(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 8.0, 8.0, 8.0])
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock))
    progress = Progress(total=14, done=2)
    progress.step(10), progress.step(30)
    line = capsys.readouterr().err
    assert line == '  4 of 14 images, 4.00 s and 20 patches per image, 40 s left\n'
