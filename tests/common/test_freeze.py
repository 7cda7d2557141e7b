import copy
import pickle

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mmprompt.common.freeze import freeze, freeze_except, frozen_roots, is_frozen, under_roots


class Pair(BaseModule):
    def __init__(self):
        super().__init__()
        init = {'type': 'Constant', 'layer': 'Conv2d', 'val': 7.0}
        self.base = nn.Sequential(Block(init), nn.BatchNorm2d(3))
        self.head = Block(init)


class Block(BaseModule):
    def __init__(self, init_cfg):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 3, 1)


def test_no_gradient_and_eval_whatever_the_parent_does():
    model = Pair()
    freeze(model.base)
    model.train()
    assert model.head.training and not any(m.training for m in model.base.modules())
    before = {k: v.clone() for k, v in model.base.state_dict().items()}
    model.head.conv(model.base[1](model.base[0].conv(torch.randn(2, 3, 4, 4)))).sum().backward()
    assert all(p.grad is None for p in model.base.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.base.state_dict().items())


def test_init_weights_passes_frozen_parts_by():
    model = Pair()
    freeze(model.base)
    before = model.base[0].conv.weight.clone()
    model.init_weights()
    assert torch.equal(model.base[0].conv.weight, before)
    assert (model.head.conv.weight == 7).all()


def test_names_and_state_dict_stay():
    model, twin = Pair(), Pair()
    freeze(model.base)
    assert list(model.state_dict()) == list(twin.state_dict())
    assert type(model.base) is nn.Sequential
    assert frozen_roots(model) == ['base']
    freeze(model.base[0])
    assert frozen_roots(model) == ['base']
    assert under_roots('base.0.conv.weight', ['base'])
    assert not under_roots('basement.weight', ['base'])


def test_copies_stay_frozen():
    model = Pair()
    freeze(model.base)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.train()
        assert is_frozen(twin.base) and not twin.base[1].training
        assert twin.base.train.module is twin.base


class Owner(nn.Module):
    """Parts of every kind: modules, a list, parameters and a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.kept = nn.Parameter(torch.zeros(2))
        self.still = nn.Parameter(torch.zeros(2))
        self.register_buffer('count', torch.zeros(1))
        self.norm = nn.BatchNorm2d(3)
        self.body = nn.Sequential(nn.BatchNorm2d(3))
        self.rows = nn.ParameterList([nn.Parameter(torch.zeros(2))])


def test_all_but_a_few_parts():
    model = nn.Sequential(Owner())
    freeze_except(model[0], ('kept', 'norm'))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {'0.kept', '0.norm.weight', '0.norm.bias'}
    roots = ['0.still', '0.count', '0.body', '0.rows']
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert frozen_roots(twin) == roots
        twin.train()
        assert twin[0].training and twin[0].norm.training and not twin[0].body[0].training
    frozen = {name for name in model.state_dict() if under_roots(name, roots)}
    learned = {name for name in model.state_dict() if name.startswith(('0.kept', '0.norm.'))}
    assert frozen | learned == set(model.state_dict()) and not frozen & learned
    assert not under_roots('0.stillness', roots)


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="Owner has no part 'nrom'"):
        freeze_except(Owner(), ('nrom',))
