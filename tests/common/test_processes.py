import pytest
import torch
from mmengine.config import Config

from mmprompt.apis.running import divide_batch, prepare
from mmprompt.apis.train import main
from mmprompt.common import processes
from mmprompt.common.errors import UserError


def place(monkeypatch, rank=0, number=2, local=None):
    """Make this process believe that torchrun started it."""
    values = dict(RANK=rank, WORLD_SIZE=number, LOCAL_RANK=rank if local is None else local)
    values |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=1)
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_a_single_process_needs_no_other(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    assert not processes.by_torchrun()
    assert processes.num_processes() == 1 and processes.is_first() and processes.first_to_fail()
    processes.join()
    processes.leave()
    assert not torch.distributed.is_initialized()
    assert prepare(Config(dict(a=1))).launcher == 'none'


def test_torchrun_is_noticed(monkeypatch):
    place(monkeypatch, rank=1)
    assert processes.by_torchrun() and processes.num_processes() == 2
    assert not processes.is_first()
    assert prepare(Config(dict(a=1))).launcher == 'pytorch'


def test_only_the_first_that_fails_speaks(monkeypatch):
    monkeypatch.setattr(processes, '_meeting', dict(store=torch.distributed.HashStore()))
    assert [processes.first_to_fail() for _ in range(3)] == [True, False, False]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    place(monkeypatch, rank=3, number=4)
    monkeypatch.setattr(processes, '_meeting', dict(store=torch.distributed.HashStore()))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match=r'at most 2, the number of GPUs, found 4\..*gloo'):
        processes.join()


def test_the_batch_is_divided(monkeypatch):
    cfg = Config(dict(train_dataloader=dict(batch_size=4)))
    assert divide_batch(cfg).train_dataloader.batch_size == 4
    place(monkeypatch)
    assert divide_batch(cfg).train_dataloader.batch_size == 2
    assert cfg.train_dataloader.batch_size == 4, 'the caller keeps the config as it was'
    place(monkeypatch, number=3)
    with pytest.raises(UserError, match=r'multiple of the 3 processes.*found 4\..*batch_size=6'):
        divide_batch(cfg)
    assert divide_batch(Config(dict(a=1))).a == 1  # nothing to train


def test_launcher_insists_on_torchrun(monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    assert main(['any', '--launcher', 'pytorch']) == 2
    assert 'torchrun --nproc_per_node' in capsys.readouterr().err


def test_mean_count_of_one_process_is_its_count():
    assert float(processes.mean_count(torch.tensor(7))) == 7
    assert float(processes.mean_count(torch.tensor(0))) == 1
    weights = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    found = processes.mean_count(weights)
    assert found.dtype == torch.float64 and found == 0.3 and not found.requires_grad
