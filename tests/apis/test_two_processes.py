"""Two processes started by torchrun: the same metrics, weights, files and errors as of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmprompt.common.prompt_file import PromptFile

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
METHODS = ('ssprompt', 'coop', 'locn', 'vspl', 'head', 'full')
TASKS = ('instance', 'panoptic')
RUNS = [f'{m}-semantic' for m in METHODS] + [f'ssprompt-{t}' for t in TASKS]
ZERO_SHOT = (('semantic', 2), ('semantic', 3), ('instance', 3), ('panoptic', 3))
STEPS = 3

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason='needs the gloo backend of torch.distributed',
)


def write_data(folder: Path) -> None:
    """A base, five images to learn from, some with far fewer labelled pixels, and three more."""
    from prompt_files import write_stirred_base
    from toy import write_streets

    write_stirred_base(folder / 'stirred.safetensors')
    write_streets(folder / 'write_streets', train=5, val=3)
    for index, path in enumerate(labels(folder)):
        rows = 8 * (index % 3)
        label = Image.open(path)
        label.paste(255, (0, 0, label.width, rows))
        label.save(path)


def labels(folder: Path) -> list[Path]:
    """The label maps to learn from."""
    return sorted(folder.glob('write_streets/gtFine/train/*/*labelTrainIds.png'))


def make_config(folder: Path, method: str, task: str = 'semantic') -> Config:
    """A toy run of three steps with four images each; `folder` has the data."""
    from toy import shrink

    from mmprompt.apis.cli import find_config

    leaf = 'fog' if task == 'semantic' else f'fog-{task}'
    cfg = shrink(find_config(f'ssprompt/nano_streets-{leaf}_16shot.py'), folder)
    cfg.model.update(method=method, feature_cache=None, base=str(folder / 'stirred.safetensors'))
    cfg.model.backbone.drop_path_rate = 0.0  # random paths of a batch know no single image
    cfg.model.decode_head.mask_loss.update(grid='native', matcher=dict(grid='native'))
    rate = 1e-2 if method in ('head', 'full') else 1.0 if task == 'semantic' else 1e-3
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=rate)
    cfg.param_scheduler = []
    cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.dataset.k = 4
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=10)
    cfg.default_hooks.logger.interval = 1
    return cfg


def learn(folder: Path, out: Path, method: str, task: str = 'semantic', **model) -> dict:
    """Train and validate in this process, one of two or the only one; what the log shows."""
    from mmprompt.apis.train import train

    cfg = make_config(folder, method, task)
    cfg.model.update(model)
    cfg.work_dir = str(out / f'{method}-{task}{"-cache" if model else ""}')
    hub = train(cfg).message_hub
    shown = {k: v.data[0][-STEPS:].tolist() for k, v in hub.log_scalars.items()}
    return {k: v for k, v in shown.items() if not k.endswith('time')}


def zero_shot(folder: Path, out: Path, count: int, task: str) -> dict:
    """Measure without learning anything, on the first `count` images of three."""
    from mmprompt.apis.test import test as measure

    cfg = make_config(folder, 'zero-shot', task)
    cfg.test_dataloader.dataset.indices = count
    cfg.work_dir = str(out / f'zero-shot-{task}-{count}')
    return measure(cfg, out=out / f'zero-shot-{task}-{count}.json')


def everything(folder: Path, out: Path) -> dict:
    """All runs that are compared."""
    found = {f'{m}-semantic': learn(folder, out, m) for m in METHODS}
    found |= {f'ssprompt-{t}': learn(folder, out, 'ssprompt', t) for t in TASKS}
    for task, count in ZERO_SHOT:
        found[f'zero-shot-{task}-{count}'] = zero_shot(folder, out, count, task)
    cache = dict(root=str(folder / 'features'), dtype='fp32')
    found['ssprompt-semantic-cache'] = learn(folder, out, 'ssprompt', feature_cache=cache)
    return found


def start(*arguments, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a script in two processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    command += ['--master_addr', '127.0.0.1', '--master_port', str(port), *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get('PYTHONPATH', '')])
    changed = dict(OMP_NUM_THREADS='1', PYTHONPATH=paths, CUDA_VISIBLE_DEVICES='')
    return subprocess.run(
        command, env=os.environ | changed, cwd=cwd, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('two')
    write_data(folder)
    return folder


@pytest.fixture(scope='module')
def pair(data) -> dict:
    """What two processes found, and one, which may encode nothing that is in the cache."""
    two, one = data / 'of_two', data / 'of_one'
    (data / 'here').mkdir()
    done = start(Path(__file__), data, two, cwd=data / 'here')
    assert done.returncode == 0, done.stderr
    assert not any((data / 'here').iterdir()), 'debris in the current folder'
    files = {p: p.stat().st_mtime_ns for p in (data / 'features').rglob('*') if p.is_file()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = everything(data, one)
    finally:
        torch.set_num_threads(threads)
    later = {p: p.stat().st_mtime_ns for p in (data / 'features').rglob('*') if p.is_file()}
    return dict(
        two=json.loads((two / 'found.json').read_text()),
        one=json.loads(json.dumps(found)),
        folders=(two, one),
        files=(files, later),
    )


@pytest.mark.parametrize('run', RUNS)
def test_two_processes_learn_what_one_learns(pair, run):
    files = [PromptFile.load(f / run / 'prompt.safetensors') for f in pair['folders']]
    assert files[0].recipe == files[1].recipe and files[0].recipe['batch_size'] == 4
    assert files[0].tensors.keys() == files[1].tensors.keys()
    for name, tensor in files[1].tensors.items():
        assert torch.allclose(files[0].tensors[name], tensor, rtol=1e-6, atol=1e-6), name
    two, one = pair['two'][run], pair['one'][run]
    assert two.keys() == one.keys()
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-5, nan_ok=True), key
    assert len(set(one['train/loss'])) == STEPS, 'the steps must differ'


def test_the_metric_counts_every_image_once(pair):
    for task, count in ZERO_SHOT:
        run = f'zero-shot-{task}-{count}'
        assert str(pair['two'][run]) == str(pair['one'][run]), run  # NaN equals no NaN
    assert pair['one']['zero-shot-semantic-2'] != pair['one']['zero-shot-semantic-3']


def test_one_process_finds_what_two_have_encoded(pair):
    before, after = pair['files']
    assert before and before == after
    assert pair['two']['ssprompt-semantic-cache'] == pair['two']['ssprompt-semantic']


def test_training_resumes_with_another_number_of_processes(pair, data, tmp_path):
    """One process goes on after two, and two, on the command line, after one."""
    from mmprompt.apis.train import train

    wanted = PromptFile.load(pair['folders'][1] / 'ssprompt-semantic' / 'prompt.safetensors')
    two, one = (folder / 'ssprompt-semantic' / 'iter_2.pth' for folder in pair['folders'])
    cfg = make_config(data, 'ssprompt')
    cfg.work_dir = str(tmp_path / 'one')
    train(cfg, str(two))
    cfg.dump(tmp_path / 'toy.py')
    done = start(
        *(ROOT / 'tools' / 'train.py', tmp_path / 'toy.py', '--work-dir', tmp_path / 'two'),
        *('--resume', one, '--launcher', 'pytorch'),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('Prompt file') == 1
    assert done.stdout.count('Iter(train) [3/3]') == 1 and '[2/3]' not in done.stdout
    assert len([*(tmp_path / 'two').rglob('*.log')]) == 1
    for folder in ('one', 'two'):
        found = PromptFile.load(tmp_path / folder / 'prompt.safetensors').tensors
        for name, tensor in wanted.tensors.items():
            assert torch.allclose(found[name], tensor, rtol=1e-6, atol=1e-6), (folder, name)


def test_one_that_fails_ends_both_with_one_message(tmp_path):
    """The second image, which the second process takes, has a label that is no class."""
    write_data(tmp_path)
    path = labels(tmp_path)[1]
    label = Image.open(path)
    label.putpixel((9, 20), 77)
    label.save(path)
    cfg = make_config(tmp_path, 'ssprompt')
    cfg.train_dataloader.update(batch_size=2, sampler=dict(type='ResumableSampler', shuffle=False))
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
    cfg.dump(tmp_path / 'toy.py')
    work = tmp_path / 'work'
    done = start(ROOT / 'tools' / 'train.py', tmp_path / 'toy.py', '--work-dir', work)
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count('error: ') == 1 and 'found 77' in done.stderr, done.stderr
    assert 'exitcode  : 2' in done.stderr and 'Connection closed' not in done.stderr
    assert not [*work.rglob('*.pth'), *work.rglob('*.safetensors')]


if __name__ == '__main__':
    where, out = map(Path, sys.argv[1:3])
    from mmprompt.common.processes import is_first

    results = everything(where, out)
    if is_first():
        (out / 'found.json').write_text(json.dumps(results))
