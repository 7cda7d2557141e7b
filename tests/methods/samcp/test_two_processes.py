"""Two processes started by torchrun learn what one process learns, noise and flips included."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_samcp_runs import make_config, write_data

from mmprompt.apis.train import train
from mmprompt.common.checkpoint import load_strict
from mmprompt.registry import MODELS

TESTS = Path(__file__).resolve().parents[2]
STEPS = 3

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason='needs the gloo backend of torch.distributed',
)


def write_start(folder: Path) -> None:
    """Weights with which queries differ: at the start of a training all affinities are equal, and
    rounding decides which of equal queries is matched to a unit."""
    torch.manual_seed(0)
    model = MODELS.build(make_config(folder, folder).model)
    for layer in model.head.decoder.layers:
        torch.nn.init.normal_(layer.affinity.mlp[-1].weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'start.pth')


def learn(folder: Path, out: Path) -> list[float]:
    """Train in this process, one of two or the only one; the loss of each step."""
    cfg = make_config(folder, out, STEPS, interval=STEPS, batch=4)
    cfg.load_from = str(folder / 'start.pth')
    # A gradient step itself; Adam divides by what may be rounding alone.
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
    return train(cfg).message_hub.log_scalars['train/loss'].data[0].tolist()


def test_two_processes_learn_what_one_learns(tmp_path):
    write_data(tmp_path)
    write_start(tmp_path)
    steps = learn(tmp_path, tmp_path / 'one')
    assert len(set(steps)) == STEPS, 'the steps must differ'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    command += ['--master_addr', '127.0.0.1', '--master_port', str(port), __file__, str(tmp_path)]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get('PYTHONPATH', '')])
    changed = dict(OMP_NUM_THREADS='1', PYTHONPATH=paths, CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        command, env=os.environ | changed, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_strict(tmp_path / out / f'iter_{STEPS}.pth') for out in ('one', 'two'))
    # Rounding grows from step to step.
    losses = two['message_hub']['log_scalars']['train/loss'].data[0].tolist()
    assert losses == pytest.approx(steps, rel=1e-4)
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for key, tensor in one['state_dict'].items():
        assert torch.allclose(two['state_dict'][key], tensor, rtol=1e-4, atol=1e-4), key


if __name__ == '__main__':
    learn(Path(sys.argv[1]), Path(sys.argv[1]) / 'two')
