"""VPT, AdaptFormer and LoRA against plain twins of the backbones that they are hooked onto."""

import copy

import pytest
import torch
from mmseg.models.backbones.vit import TransformerEncoderLayer
from torch import nn
from torch.func import functional_call

from mmprompt.common.errors import UserError
from mmprompt.methods.spm.adapters import VPT, AdaptFormer, LoRA, build_adapters
from tests.adapted import (
    BACKBONES,
    METHODS,
    RESNET,
    TIMM_VIT,
    UNITS,
    VIT,
    WIDTH,
    ZERO_START,
    adapted,
    built,
    close,
    differs,
    images,
)


def merged(plain: nn.Module, adapters: nn.ModuleList, scale: float) -> dict[str, torch.Tensor]:
    """Weights of the plain backbone with (alpha / r) B A added, by the names that it gives them."""
    weights, order = {}, iter(adapters)
    names = [name for name, _ in plain.named_parameters()]
    packed = [n for n in names if n.endswith(('in_proj_weight', 'qkv.weight'))]
    if packed:
        for name in packed:
            part = next(order)
            change = [scale * part[t].b @ part[t].a for t in ('query', 'key', 'value')]
            weights[name] = plain.get_parameter(name) + torch.cat(change)
    for name in [n for n in names if n.endswith('q_proj.weight')]:
        part = next(order)
        for target in ('query', 'key', 'value'):
            own = name.replace('q_proj', f'{target[0]}_proj')
            weights[own] = plain.get_parameter(own) + scale * part[target].b @ part[target].a
    assert weights and next(order, None) is None
    return weights


def unit_loop(plain: nn.Module, x: torch.Tensor, step) -> list[torch.Tensor]:
    """What MMSegmentation's VisionTransformer does, written out; `step(i, unit, sequence)`."""
    prefix = int(plain.with_cls_token)
    embedded, (height, width) = plain.patch_embed(x)
    sequence = torch.cat([plain.cls_token.expand(len(x), -1, -1), embedded], dim=1)
    sequence = plain._pos_embeding(sequence, (height, width), plain.pos_embed)[:, 1 - prefix :]
    outputs = []
    for index, unit in enumerate(plain.layers):
        sequence = step(index, unit, sequence)
        if index in plain.out_indices:
            picture = sequence[:, prefix:].transpose(1, 2)  # (B, d, N)
            outputs.append(picture.reshape(len(x), -1, height, width))
    return outputs


# ------------------------------------------------------------------ what is computed
@pytest.mark.parametrize('class_token', [True, False])
def test_deep_vpt_is_the_loop_that_concatenates_and_removes(class_token):
    plain, backbone, adapters = adapted(VIT, 'vpt', with_cls_token=class_token)
    at = int(class_token)

    def step(index, unit, x):
        tokens = adapters[index].tokens.expand(len(x), -1, -1)
        x = unit(torch.cat([x[:, :at], tokens, x[:, at:]], dim=1))
        return torch.cat([x[:, :at], x[:, at + 5 :]], dim=1)

    close(backbone(images()), unit_loop(plain, images(), step))
    assert differs(backbone(images()), plain(images()))


@pytest.mark.parametrize('class_token', [True, False])
def test_shallow_vpt_keeps_the_tokens_of_the_unit_before(class_token):
    plain, backbone, adapters = adapted(VIT, 'shallow', with_cls_token=class_token)
    assert len(adapters) == 1
    at, tokens = int(class_token), adapters[0].tokens.expand(2, -1, -1)

    def step(index, unit, x):
        nonlocal tokens
        x = unit(torch.cat([x[:, :at], tokens, x[:, at:]], dim=1))
        tokens = x[:, at : at + 5]
        return torch.cat([x[:, :at], x[:, at + 5 :]], dim=1)

    close(backbone(images()), unit_loop(plain, images(), step))
    assert differs(backbone(images()), plain(images()))


def test_vpt_on_timm_is_the_loop_over_its_blocks():
    plain, backbone, adapters = adapted(TIMM_VIT, 'vpt')
    inner = next(m for m in plain.modules() if hasattr(m, 'num_prefix_tokens') and m.blocks)
    x = inner._pos_embed(inner.patch_embed(images()))
    for part, block in zip(adapters, inner.blocks):
        tokens = part.tokens.expand(len(x), -1, -1)
        x = block(torch.cat([x[:, :1], tokens, x[:, 1:]], dim=1))
        x = torch.cat([x[:, :1], x[:, 6:]], dim=1)
    result = backbone(images())[-1]
    close([result], [x[:, 1:].transpose(1, 2).reshape(result.shape)])


def test_adaptformer_is_its_formula():
    plain, backbone, adapters = adapted(VIT, 'adaptformer')

    def step(index, unit, x):
        x = unit.attn(unit.norm1(x), identity=x)
        normed, part = unit.norm2(x), adapters[index]
        hidden = torch.clamp(normed @ part.down.weight.T + part.down.bias, min=0)
        return unit.ffn.layers(normed) + 0.1 * (hidden @ part.up.weight.T + part.up.bias) + x

    close(backbone(images()), unit_loop(plain, images(), step))
    assert differs(backbone(images()), plain(images()))


@pytest.mark.parametrize('name', BACKBONES)
def test_lora_is_a_backbone_with_merged_weights(name):
    plain, backbone, adapters = adapted(BACKBONES[name], 'lora')
    twin = functional_call(plain, merged(plain, adapters, scale=3), (images(),))
    close(backbone(images()), twin)
    assert differs(backbone(images()), plain(images()))


def test_lora_changes_the_projections_that_it_is_told():
    backbone = built(VIT)
    adapters = build_adapters(backbone, dict(type='LoRA'))
    assert [sorted(part) for part in adapters] == [['query', 'value']] * UNITS
    part, attention = adapters[0], backbone.layers[0].attn.attn
    nn.init.ones_(part['query'].b), nn.init.ones_(part['value'].b)
    frozen = attention.in_proj_weight
    part.enter(attention, ())
    change = attention.in_proj_weight - frozen
    part.leave(attention, (), None)
    query, key, value = change.split(WIDTH)
    torch.testing.assert_close(query, (2 * part['query'].a.sum(0)).expand(WIDTH, -1))
    torch.testing.assert_close(value, (2 * part['value'].a.sum(0)).expand(WIDTH, -1))
    assert not key.any()


@pytest.mark.parametrize('config', [VIT, TIMM_VIT], ids=['packed', 'linear'])
def test_lora_is_peft_of_the_stacked_rank(config):
    """Query, key and value of rank r are one block-diagonal product of rank 3 r."""
    peft = pytest.importorskip('peft')
    plain, backbone, adapters = adapted(config, 'lora')
    names = [
        n
        for n, m in plain.named_modules()
        if isinstance(m, nn.MultiheadAttention) or n.endswith('.qkv')
    ]
    oracle = peft.get_peft_model(plain, peft.LoraConfig(r=6, lora_alpha=18, target_modules=names))
    parts = [m for m in oracle.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    parts = [p for p in parts if p.lora_A['default'].in_features == WIDTH and p.lora_B]
    parts = [p for p in parts if p.lora_B['default'].out_features == 3 * WIDTH]
    assert len(parts) == UNITS
    for part, adapter in zip(parts, adapters):
        order = [adapter[t] for t in ('query', 'key', 'value')]
        part.lora_A['default'].weight.data = torch.cat([p.a for p in order])
        part.lora_B['default'].weight.data = torch.block_diag(*(p.b for p in order))
    close(backbone(images()), oracle(images()))


# ------------------------------------------------------------------ start, gradients, counts
@pytest.mark.parametrize('method', ZERO_START)
@pytest.mark.parametrize('name', BACKBONES)
def test_step_zero_is_the_frozen_backbone_bit_for_bit(name, method):
    plain = built(BACKBONES[name])
    backbone = copy.deepcopy(plain)
    build_adapters(backbone, METHODS[method])
    with torch.no_grad():  # for a weight with a gradient torch may take another kernel
        for one, other in zip(backbone(images()), plain(images()), strict=True):
            assert torch.equal(one, other)
    close(backbone(images()), plain(images()))


def test_tokens_start_within_the_bound_of_xavier():
    deep = build_adapters(built(VIT), dict(type='VPT', num_tokens=200))
    bound = (6 / (3 * 8 * 8 + WIDTH)) ** 0.5
    largest = max(float(part.tokens.detach().abs().max()) for part in deep)
    assert 0.99 * bound < largest <= bound


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.parametrize('checkpointed', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_gradients_reach_every_part_and_nothing_else(method, checkpointed):
    plain, backbone, adapters = adapted(VIT, method)
    for unit in backbone.layers:
        unit.with_cp = checkpointed
    backbone(images())[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapters.parameters())
    assert all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize('name', BACKBONES)
def test_gradients_of_lora_are_those_of_the_merged_weights(name):
    plain, backbone, adapters = adapted(BACKBONES[name], 'lora')
    parts = list(adapters.parameters())
    twin = functional_call(plain, merged(plain, adapters, scale=3), (images(),))
    expected = torch.autograd.grad(sum(level.square().sum() for level in twin), parts)
    found = torch.autograd.grad(sum(lv.square().sum() for lv in backbone(images())), parts)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(
    ('config', 'count'),
    [
        (dict(type='VPT'), 24 * 50 * 1024),
        (dict(type='VPT', deep=False), 50 * 1024),
        (dict(type='AdaptFormer'), 24 * (2 * 1024 * 64 + 64 + 1024)),
        (dict(type='LoRA'), 24 * 4 * 8 * 1024),
    ],
    ids=['deep', 'shallow', 'adaptformer', 'lora'],
)
def test_counts_on_vit_l_are_those_of_the_docstring(config, count):
    from mmprompt.methods.spm import adapters as module

    with torch.device('meta'):  # the whole VisionTransformer cannot be built there
        large = nn.Sequential(nn.Conv2d(3, 1024, 16))
        large.extend(TransformerEncoderLayer(1024, 16, 4096) for _ in range(24))
        parts = build_adapters(large, config)
    assert sum(p.numel() for p in parts.parameters()) == count
    assert f' {count:,}\n' in module.__doc__


# ------------------------------------------------------------------ errors and names
@pytest.mark.parametrize('kind', ['VPT', 'AdaptFormer', 'LoRA'])
def test_a_backbone_without_units_is_refused(kind):
    with pytest.raises(UserError, match=f'{kind}: .*ResNetV1c, which has none.*VisionTransformer'):
        build_adapters(built(RESNET), dict(type=kind))


@pytest.mark.parametrize('name', ['swin', 'beit', 'eva'])
def test_vpt_refuses_units_bound_to_their_tokens(name):
    with pytest.raises(UserError, match='VPT: .*any length.*Use AdaptFormer or LoRA'):
        build_adapters(built(BACKBONES[name]), dict(type='VPT'))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(type='VPT', num_tokens=0), 'num_tokens .* at least 1, found 0'),
        (dict(type='AdaptFormer', channels=0), 'channels .* at least 1, found 0'),
        (dict(type='LoRA', rank=0.5), 'rank .* at least 1, found 0.5'),
        (dict(type='LoRA', targets=('query', 'output')), r"'key'.*found \['query', 'output'\]"),
        (dict(type='LoRA', targets=()), r'found \[\]'),
    ],
)
def test_arguments_out_of_range_are_named(config, message):
    with pytest.raises(UserError, match=message):
        build_adapters(built(VIT), config)


def test_maps_and_other_projections_are_refused():
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.mlp = nn.Conv2d(3, 3, 1), nn.Linear(3, 3)

        def forward(self, x):
            return x

    unit = Unit()
    with pytest.raises(UserError, match='LoRA: .*q_proj.*found Conv2d'):
        build_adapters(unit, dict(type='LoRA'))
    build_adapters(unit, dict(type='VPT'))
    with pytest.raises(UserError, match='tensor of 4 dimensions'):
        unit(torch.zeros(1, 3, 4, 4))
    unit.mlp = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match='AdaptFormer: .*linear.*found Conv2d'):
        build_adapters(unit, dict(type='AdaptFormer'))


def test_types_are_those_of_the_registry():
    kinds = [type(build_adapters(built(VIT), METHODS[m])) for m in METHODS]
    assert kinds == [VPT, VPT, AdaptFormer, LoRA]


def test_dropout_follows_the_mode_of_the_adapters():
    for config in (dict(type='VPT', dropout=0.5), dict(type='AdaptFormer', dropout=0.5)):
        backbone = built(VIT)
        adapters = build_adapters(backbone, config)
        for parameter in adapters.parameters():
            nn.init.normal_(parameter)
        assert differs(backbone(images()), backbone(images()))
        adapters.eval()
        assert not differs(backbone(images()), backbone(images()))
