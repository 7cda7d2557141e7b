"""Trainings that are interrupted, or killed, end as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_samcp_runs import make_config, write_data

from mmprompt.apis.train import latest_checkpoint, train
from mmprompt.common.checkpoint import load_strict
from mmprompt.common.checkpoint_hook import AtomicLocalBackend

TESTS = Path(__file__).resolve().parents[2]
STEPS, INTERVAL = 6, 2


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Data, and an uninterrupted training in `one`: its loss of each step and its model."""
    folder = tmp_path_factory.mktemp('place')
    write_data(folder)
    runner = train(make_config(folder, folder / 'one', STEPS, INTERVAL))
    return folder, losses(runner), runner.model


def losses(runner) -> dict[str, list[float]]:
    """Every loss of each step of the whole training, as the log shows them."""
    scalars = runner.message_hub.log_scalars.items()
    found = {k: v.data[0].tolist() for k, v in scalars if 'loss' in k}
    assert any('denoising' in name for name in found) and 'train/loss' in found
    return found


def same(one: dict, two: dict) -> bool:
    """Whether two files or states are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def assert_same_end(folder: Path, other: Path) -> None:
    """Weights, state of the optimiser and schedule of two finished trainings."""
    ends = [load_strict(each / f'iter_{STEPS}.pth') for each in (folder, other)]
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert same(*(end[part] for end in ends)), part


@pytest.mark.parametrize('workers', [0, 1])
def test_resume_is_exact(workers, place, tmp_path):
    folder, whole, model = place
    shutil.copy(folder / 'one' / 'iter_2.pth', tmp_path)  # all that the interruption left
    cfg = make_config(folder, tmp_path, STEPS, INTERVAL)
    cfg.train_dataloader.num_workers = workers
    rest = train(cfg, 'auto')
    assert losses(rest) == whole and len(set(whole['train/loss'])) == STEPS
    assert same(rest.model.state_dict(), model.state_dict())
    assert_same_end(folder / 'one', tmp_path)


def be_killed(config: str, resume: str, moment: str) -> None:
    """Train in this process until it kills itself at a moment that nobody outside can hit."""
    step = 'iter_4.pth'
    replace, put = os.replace, AtomicLocalBackend.put

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == 'while a checkpoint is written':
        os.replace = lambda old, new: die() if Path(new).name == step else replace(old, new)
    elif moment == 'behind a checkpoint':  # and before it is noted as the last one

        def put_and_die(self, content, path) -> None:
            put(self, content, path)
            if Path(path).name == step:
                die()

        AtomicLocalBackend.put = put_and_die
    train(Config.fromfile(config, format_python_code=False), resume)


def start(config: Path, moment: str) -> subprocess.Popen:
    """A training in a process of its own, from the last checkpoint if there is one."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get('PYTHONPATH', '')])
    changed = dict(OMP_NUM_THREADS='1', PYTHONPATH=paths, CUDA_VISIBLE_DEVICES='')
    return subprocess.Popen(
        [sys.executable, __file__, str(config), 'auto', moment],
        env=os.environ | changed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Several threads add in an order of their own: no two runs are equal to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        yield
    torch.set_num_threads(before)


def test_a_killed_training_goes_on_from_its_last_checkpoint(place, tmp_path):
    folder, whole, model = place
    config, work = tmp_path / 'config.py', tmp_path / 'work'
    make_config(folder, work, STEPS, INTERVAL).dump(config)

    process, note = start(config, 'from outside'), work / 'last_checkpoint'
    # The note is there for a moment before it says anything.
    while process.poll() is None and not (note.exists() and note.read_text()):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    assert latest_checkpoint(work).name == 'iter_2.pth'
    for moment in ('while a checkpoint is written', 'behind a checkpoint'):
        process = start(config, moment)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, errors
        # A checkpoint counts from when it is noted, and what is not noted is made again.
        assert latest_checkpoint(work).name == 'iter_2.pth'
    assert (work / 'iter_4.pth').exists()

    rest = train(make_config(folder, work, STEPS, INTERVAL), 'auto')
    assert losses(rest) == whole
    assert same(rest.model.state_dict(), model.state_dict())
    assert_same_end(folder / 'one', work)


if __name__ == '__main__':
    be_killed(*sys.argv[1:])
