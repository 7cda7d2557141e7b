import copy
import pickle

import torch
from mmengine.model import BaseModule
from torch import nn

from mmprompt.common.freeze import freeze, frozen_roots, is_frozen, under_roots


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
