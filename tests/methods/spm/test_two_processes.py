"""Two processes started by torchrun learn the matchers and the head that one process learns."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmprompt.common.checkpoint import load_tensors

TESTS = Path(__file__).resolve().parents[2]
FILES = ('prompt.safetensors', 'head.safetensors')
STEPS = 3
#: Statistics of a batch are those of a process; of a sample, the same in one process and in two.
NORM = dict(type='GN', num_groups=2)

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason='needs the gloo backend of torch.distributed',
)


def make_config(folder: Path, out: Path) -> Config:
    """Three steps of four images each, on the toy twin of CamVid."""
    from toy import shrink

    from mmprompt.apis.cli import find_config

    cfg = shrink(find_config('spm/spm_r50_psp_camvid.py'), folder)
    cfg.model.backbone.prompter.update(norm_cfg=NORM, zero_start=False)
    cfg.model.decode_head.update(norm_cfg=NORM, dropout_ratio=0.0)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
    cfg.param_scheduler = []
    cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    cfg.train_dataloader.batch_size = 4
    cfg.default_hooks.logger.interval = 1
    cfg.work_dir = str(out)
    return cfg


def learn(folder: Path, out: Path) -> list[float]:
    """Train and validate in this process; the loss of each step."""
    from mmprompt.apis.train import train

    return train(make_config(folder, out)).message_hub.log_scalars['train/loss'].data[0].tolist()


def test_two_processes_learn_what_one_learns(tmp_path):
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
    for name in FILES:
        one, two = (load_tensors(tmp_path / out / name)[0] for out in ('one', 'two'))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            assert torch.allclose(two[key], tensor, rtol=1e-5, atol=1e-6), (name, key)


if __name__ == '__main__':
    learn(Path(sys.argv[1]), Path(sys.argv[1]) / 'two')
