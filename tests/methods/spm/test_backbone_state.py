"""The wrapper over time: what training, saving, copying and failing leave of it."""

import copy
import io
import pickle

import pytest
import torch
from drop_in import build, same, state_of, stir
from mmengine.model import ExponentialMovingAverage
from prompted import BACKBONES, RESNET, SWIN, VIT, flat, images, open_up, wrapped
from torch import nn
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import frozen_roots

every_backbone = pytest.mark.parametrize('name', BACKBONES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ------------------------------------------------------------------ frozen and trained
@every_backbone
def test_the_backbone_keeps_class_names_and_bytes(name):
    config, places = BACKBONES[name]
    bare, model = build(config), wrapped(config, places).train()
    model.load_base()
    before = state_of(model.backbone)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(10):
        optimiser.zero_grad()
        flat(model(images()))[-2 if name == 'vit' else -1].square().mean().backward()
        optimiser.step()
    assert type(model.backbone) is type(bare)
    assert list(model.backbone_state_dict()) == list(bare.state_dict())
    assert same(state_of(model.backbone), before)
    assert frozen_roots(model) == ['backbone']
    assert all(p.grad is None and not p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert all(p.grad is not None for p in model.matchers.parameters())


def test_no_graph_before_the_first_prompt():
    model = wrapped(places=['layer3', 'out'])
    levels = model(images())
    assert [level.requires_grad for level in levels] == [False, False, True, True]


@pytest.mark.parametrize('tuning', ['spm', 'head', 'full', 'scratch'])
def test_tuning_modes(tuning):
    model = wrapped(tuning=tuning)
    prompted, trained = tuning == 'spm', tuning in ('full', 'scratch')
    assert len(model.matchers) == 5 * prompted and model.adapters is None
    assert all(p.requires_grad is trained for p in model.backbone.parameters())
    assert model.train().backbone.training is trained
    picture = images()
    with model.recording() as interim:
        result = model.eval()(picture)
    assert len(interim) == 5 * prompted and same(result, model.backbone(picture))


@pytest.mark.parametrize('tuning', ['vpt', 'adaptformer', 'lora'])
def test_tuning_modes_of_transformers(tuning):
    model = wrapped(VIT, ['layers.0'], tuning=tuning)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith('adapters.') for name in trained)
    assert not model.matchers and frozen_roots(model) == ['backbone']


def test_unknown_tuning():
    with pytest.raises(UserError, match=r"one of spm, head, .* found 'prompt'.*cfg-options"):
        wrapped(tuning='prompt')


# ------------------------------------------------------------------ state dicts
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_names_without_and_with_the_wrapper(prefix):
    owner = nn.Module()
    owner.backbone = wrapped()
    model = owner if prefix else owner.backbone
    stock = {prefix + name: value for name, value in stir(build(RESNET)).items()}
    missing, unexpected = model.load_state_dict(stock, strict=False)
    assert not unexpected and not any('.layer' in name for name in missing)
    state = owner.backbone.backbone_state_dict()
    assert all(torch.equal(state[k.removeprefix(prefix)], value) for k, value in stock.items())
    model.load_state_dict(model.state_dict())  # its own names, strictly
    # Of both the plain names count: hooks fill in the others from the model.
    both = {name: torch.zeros_like(value) for name, value in model.state_dict().items()} | stock
    model.load_state_dict(both)
    assert all(torch.equal(state[k.removeprefix(prefix)], value) for k, value in stock.items())


def test_a_state_dict_that_came_first_stays(tmp_path):
    torch.save(stir(build(RESNET)), tmp_path / 'w.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth'))
    trained = open_up(wrapped(class_prior=[0.7, 0.2, 0.1]))
    other = wrapped(dict(RESNET, init_cfg=init_cfg), class_prior=[0.1, 0.2, 0.7])
    other.load_state_dict(trained.state_dict())
    other.init_weights()
    assert same(state_of(other), state_of(trained))


def unpickled(model: nn.Module) -> nn.Module:
    return pickle.load(io.BytesIO(pickle.dumps(model)))


@pytest.mark.parametrize('copied', [copy.deepcopy, unpickled])
def test_copies_are_on_their_own(copied):
    model = open_up(wrapped()).eval()
    picture = images()
    before = [level.detach() for level in model(picture)]
    twin = copied(model)
    assert same(list(twin(picture)), before)
    for parameter in twin.matchers.parameters():
        nn.init.zeros_(parameter)
    assert same(twin(picture), model.backbone(picture))
    assert same(list(model(picture)), before)
    state = {f'backbone.{k}': v for k, v in stir(build(RESNET)).items()}
    holder = nn.Module()
    holder.backbone = twin
    holder.load_state_dict(state, strict=False)  # the hook on names is the copy's too
    assert torch.equal(twin.backbone.stem[0].weight, state['backbone.stem.0.weight'])
    assert same(list(model(picture)), before)


def test_averaged_weights():
    model = open_up(wrapped(class_prior=[0.7, 0.2, 0.1])).eval()
    average = ExponentialMovingAverage(model, momentum=0.5)
    picture = images()
    before = [level.detach() for level in model(picture)]
    assert same(list(average(picture)), before)
    for _ in range(2):  # the first update copies
        average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.matchers.parameters():
            parameter.zero_()
    average.update_parameters(model)
    assert not same(list(average(picture)), before)
    assert same(model(picture), model.backbone(picture))
    assert same(state_of(average.module.backbone), state_of(model.backbone))


# ------------------------------------------------------------------ forwards
def test_forwards_leave_nothing_behind():
    model = open_up(wrapped()).eval()
    picture = images()
    first = model(picture)
    model(images(1, (96, 64)))
    assert same(model(picture), first)
    assert model._flow is None and model._record is None


def test_an_exception_leaves_nothing_behind():
    model = open_up(wrapped()).eval()
    picture = images()
    expected = model(picture)
    alone = model.backbone.layer2(expected[0])
    handle = model.backbone.layer3.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), model.recording() as interim:
        model(picture)
    handle.remove()
    assert not interim and model._flow is None and model._record is None
    assert torch.equal(model.backbone.layer2(expected[0]), alone)
    assert same(model(picture), expected)


def test_recordings_nest():
    model = wrapped().eval()
    with model.recording() as outer:
        model(images())
        with model.recording() as inner:
            model(images())
        assert len(inner) == 5
        model(images())
    assert len(outer) == 15 and outer[5] is inner[0] and model._record is None
    model(images())
    assert len(outer) == 15


def test_a_place_inside_activation_checkpoints_is_refused():
    outside = open_up(wrapped(dict(SWIN, with_cp=True), ['stages.1.blocks.0', 'out']))
    outside(images())[-1].mean().backward()  # a unit is called outside its own checkpoint
    inside = open_up(wrapped(dict(SWIN, with_cp=True), ['stages.0', 'stages.1.blocks.1.norm2']))
    result = inside(images())[-1]
    with pytest.raises(UserError, match=r"'stages.1.blocks.1.norm2' inside activation checkpoints"):
        result.mean().backward()


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16(name, memory_format):
    config, places = BACKBONES[name]
    model = open_up(wrapped(config, places)).to(memory_format=memory_format).eval()
    picture = images().contiguous(memory_format=memory_format)
    with torch.autocast('cpu', torch.bfloat16):
        rough = flat(model(picture))
        kinds = [level.dtype for level in flat(model.backbone(picture))]
    assert [level.dtype for level in rough] == kinds
    for one, other in zip(rough, flat(model(picture))):
        assert F.cosine_similarity(one.float().flatten(), other.flatten(), dim=0) > 0.99
    if name != 'swin':  # whose masks stay in float32
        half = copy.deepcopy(model).bfloat16()
        assert {level.dtype for level in flat(half(picture.bfloat16()))} == {torch.bfloat16}
