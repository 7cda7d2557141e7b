"""The hooks of VPT, AdaptFormer and LoRA: what they leave alone, and what survives copies."""

import copy
import io
import pickle

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmprompt.common.errors import UserError
from mmprompt.methods.spm import SPMBackbone
from mmprompt.methods.spm.adapters import build_adapters
from tests.adapted import BACKBONES, METHODS, VIT, WIDTH, adapted, built, close, differs, images


@pytest.mark.parametrize('method', METHODS)
def test_the_backbone_keeps_class_names_and_bytes(method):
    plain, backbone, adapters = adapted(VIT, method)
    optimiser = torch.optim.SGD(adapters.parameters(), lr=3)
    before = backbone(images())
    sum(level.square().mean() for level in before).backward()
    optimiser.step()
    assert differs(backbone(images()), before)
    state, expected = backbone.state_dict(), plain.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    kinds = [(name, type(module)) for name, module in plain.named_modules()]
    assert [(name, type(module)) for name, module in backbone.named_modules()] == kinds
    assert all(isinstance(p, nn.Parameter) for m in backbone.modules() for p in m.parameters())


class Owner(nn.Module):
    """A backbone and its adapters, as a wrapper owns them."""

    def __init__(self, method: str, **changes) -> None:
        super().__init__()
        _, self.backbone, self.adapters = adapted(VIT, method, **changes)


def unpickled(owner: nn.Module) -> nn.Module:
    return pickle.load(io.BytesIO(pickle.dumps(owner)))


@pytest.mark.parametrize('copied', [copy.deepcopy, unpickled])
@pytest.mark.parametrize('method', METHODS)
def test_copies_have_hooks_of_their_own(method, copied):
    owner = Owner(method)
    before = [level.detach() for level in owner.backbone(images())]
    twin = copied(owner)
    close(twin.backbone(images()), before)
    for parameter in twin.adapters.parameters():
        nn.init.zeros_(parameter)
    assert differs(twin.backbone(images()), before)
    close(owner.backbone(images()), before)


def test_a_copy_between_two_units_of_shallow_vpt_has_no_tokens():
    owner = Owner('shallow')
    owner.backbone.layers[0](torch.randn(1, 7, WIDTH))
    twin = copy.deepcopy(owner)
    with pytest.raises(UserError, match='deep=True'):
        twin.backbone.layers[1](torch.randn(1, 7, WIDTH))
    close(twin.backbone(images()), owner.backbone(images()))


def test_tokens_of_shallow_vpt_are_taken_over_once():
    owner = Owner('shallow')
    owner.backbone(images())
    for unit in (owner.backbone.layers[1], owner.backbone.layers[2]):
        with pytest.raises(UserError, match='Run the whole backbone'):
            unit(torch.randn(1, 7, WIDTH))


@pytest.mark.parametrize('name', ['vit', 'beit'])
def test_weights_come_back_after_an_exception(name):
    plain, backbone, adapters = adapted(BACKBONES[name], 'lora')
    expected = [level.detach() for level in backbone(images())]

    def fail(*_, **__):
        raise RuntimeError('out of memory')

    attention = backbone.layers[1].attn
    attention = attention.attn if name == 'vit' else attention
    attention.forward = fail
    with pytest.raises(RuntimeError, match='out of memory'):
        backbone(images())
    del attention.forward
    for one, other in zip(backbone.parameters(), plain.parameters(), strict=True):
        assert isinstance(one, nn.Parameter) and torch.equal(one, other)
    close(backbone(images()), expected)


def test_a_call_inside_a_call_adds_the_product_once():
    backbone = built(VIT)
    part = build_adapters(backbone, METHODS['lora'])[0]
    nn.init.ones_(part['key'].b)
    attention = backbone.layers[0].attn.attn
    frozen = attention.in_proj_weight
    part.enter(attention, ())
    once = attention.in_proj_weight
    part.enter(attention, ())
    assert attention.in_proj_weight is once
    part.leave(attention, (), None)
    assert attention.in_proj_weight is once
    part.leave(attention, (), None)
    assert attention.in_proj_weight is frozen


@pytest.mark.skipif(
    not hasattr(torch.export, 'Dim'), reason='torch 2.1 exports by tracing bytecode'
)
@pytest.mark.parametrize('method', METHODS)
def test_export_gives_the_same(method):
    owner = Owner(method, num_layers=2, out_indices=(1,))
    program = torch.export.export(owner.backbone, (images(),), strict=False)
    close(program.module()(images()), owner.backbone(images()))


# ------------------------------------------------------------------ through the wrapper
@pytest.mark.parametrize('scope', ['mmprompt', 'mmseg'])
@pytest.mark.parametrize('tuning', ['vpt', 'adaptformer', 'lora'])
def test_the_switch_of_the_wrapper_trains_adapters_alone(tuning, scope):
    with DefaultScope.overwrite_default_scope(scope):
        wrapper = MODELS.build(
            dict(
                type='mmprompt.SPMBackbone',
                backbone=VIT,
                prompt_at=['layers.1', 'out'],
                num_classes=4,
                tuning=tuning,
            )
        )
    wrapper.train()
    trained = [name for name, p in wrapper.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith('adapters.') for name in trained)
    for parameter in wrapper.adapters.parameters():
        nn.init.normal_(parameter, std=0.2)
    outputs = wrapper(images())
    assert [tuple(level.shape) for level in outputs] == [(2, WIDTH, 4, 6)] * 2
    sum(level.square().sum() for level in outputs).backward()
    assert all(wrapper.get_parameter(name).grad.any() for name in trained)
    plain = MODELS.build(VIT)
    plain.load_state_dict(wrapper.backbone_state_dict())
    plain.eval()
    assert differs(outputs, plain(images()))


def test_the_wrapper_hands_on_arguments_of_the_adapters():
    wrapper = SPMBackbone(VIT, [], 4, tuning='vpt', adapter=dict(num_tokens=7, deep=False))
    assert [tuple(p.shape) for p in wrapper.adapters.parameters()] == [(7, WIDTH)]
