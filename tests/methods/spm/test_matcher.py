"""The matcher against Eqs. 1, 3 and 4, written out with plain functions on its own weights."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.methods.spm import SPM, PyramidDilatedConv

C, S, HIDDEN, H, W = 6, 3, 8, 5, 7
PLAIN = dict(norm_cfg=None, act_cfg=None)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(**options) -> SPM:
    """A matcher whose every weight and running statistic is random."""
    matcher = SPM(C, S, channels=HIDDEN, **options).double().eval()
    with torch.no_grad():
        for name, value in matcher.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if 'var' in name else -1
                value.uniform_(low, 1)
    return matcher


def inputs(batch=2, size=None) -> tuple[Tensor, Tensor]:
    feature = torch.randn(batch, C, H, W, dtype=torch.double)
    semantic = torch.randn(batch, S, *(size or (H, W)), dtype=torch.double).softmax(1)
    return feature, semantic


class Twin:
    """The paper's formulas; weights by the names of the matcher's state dict."""

    def __init__(self, matcher: SPM, rates=(1, 2, 4, 8)) -> None:
        self.state, self.rates = matcher.state_dict(), rates

    def __call__(self, feature: Tensor, semantic: Tensor):
        logits = self.branch('semantic', torch.cat([feature, semantic], 1))  # Eq. 3
        refined = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
        weight = self.branch('prompt', torch.cat([feature, refined], 1))  # Eq. 4
        return feature * weight, refined, logits

    def branch(self, name: str, value: Tensor) -> Tensor:
        value = self.conv(f'{name}.embed', value)
        if f'{name}.context.fuse.conv.weight' in self.state:
            share = value.shape[1] // len(self.rates)
            parts = [
                self.conv(f'{name}.context.branches.{i}', value[:, i * share :][:, :share], rate)
                for i, rate in enumerate(self.rates)
            ]
            value = self.conv(f'{name}.context.fuse', torch.cat(parts, 1))
        else:
            value = self.conv(f'{name}.context', value)
        state = self.state
        return F.conv2d(value, state[f'{name}.project.weight'], state[f'{name}.project.bias'])

    def conv(self, name: str, value: Tensor, rate: int = 1) -> Tensor:
        state, normed = self.state, f'{name}.bn.weight' in self.state
        weight = state[f'{name}.conv.weight']
        around = rate * (weight.shape[-1] // 2)
        bias = state.get(f'{name}.conv.bias')
        value = F.conv2d(value, weight, bias, padding=around, dilation=rate)
        assert normed != (bias is not None)
        if not normed:
            return value
        statistics = (state[f'{name}.bn.running_mean'], state[f'{name}.bn.running_var'])
        affine = (state[f'{name}.bn.weight'], state[f'{name}.bn.bias'])
        return F.batch_norm(value, *statistics, *affine).clamp(min=0)


@pytest.mark.parametrize('context', ['pdc', 'conv3x3'])
@pytest.mark.parametrize('options', [{}, PLAIN], ids=['norm', 'plain'])
def test_formulas(options, context):
    matcher = make(context=context, **options)
    given = inputs()
    for found, expected in zip(matcher(*given), Twin(matcher)(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_other_dilations():
    matcher, given = make(dilations=(1, 3)), inputs()
    for found, expected in zip(matcher(*given), Twin(matcher, (1, 3))(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_are_those_of_the_formulas():
    """The first convolution is split in two; its one weight gets the gradient of the whole."""
    matcher, (feature, semantic) = make(), inputs()
    feature.requires_grad_(), semantic.requires_grad_()
    leaves = [feature, semantic, *matcher.parameters()]
    twin = Twin(matcher)
    twin.state = dict(matcher.named_parameters()) | dict(matcher.named_buffers())
    found, expected = (
        torch.autograd.grad(prompt.square().sum() + logits.square().sum(), leaves)
        for prompt, _, logits in (matcher(feature, semantic), twin(feature, semantic))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_shapes_and_probabilities():
    prompt, refined, logits = SPM(C, S, channels=HIDDEN)(*(v.float() for v in inputs()))
    assert prompt.shape == (2, C, H, W) and refined.shape == logits.shape == (2, S, H, W)
    torch.testing.assert_close(refined.sum(1), torch.ones(2, H, W))
    assert (refined > 0).all()


@pytest.mark.parametrize('size', [(2, 3), (10, 14), (1, 1)])
def test_a_map_of_another_size_is_resized(size):
    matcher = make()
    feature, small = inputs(size=size)
    resized = F.interpolate(small, (H, W), mode='bilinear', align_corners=False)
    for found, expected in zip(matcher(feature, small), Twin(matcher)(feature, resized)):
        torch.testing.assert_close(found, expected)


def test_it_begins_without_a_prompt():
    feature, semantic = (value.float() for value in inputs())
    prompt, refined, _ = SPM(C, S, channels=HIDDEN)(feature, semantic)
    assert torch.equal(feature + prompt, feature)
    assert not torch.allclose(refined, semantic)
    prompt, *_ = SPM(C, S, channels=HIDDEN, zero_start=False)(feature, semantic)
    assert not torch.equal(feature + prompt, feature)


@pytest.mark.parametrize('context', ['pdc', 'conv3x3'])
def test_every_parameter_is_reached(context):
    """From zero the prompt branch is open after one step; the semantic branch has its own loss."""
    matcher = SPM(C, S, channels=HIDDEN, context=context)
    optimiser = torch.optim.SGD(matcher.parameters(), lr=0.1)
    feature, semantic = (value.float() for value in inputs())
    reached = set()
    for step in range(2):
        optimiser.zero_grad()
        prompt, _, logits = matcher(feature, semantic)
        ((feature + prompt - 1).square().mean() + logits.square().mean()).backward()
        assert step or not matcher.prompt.embed.conv.weight.grad.any()
        reached |= {name for name, p in matcher.named_parameters() if p.grad.any()}
        optimiser.step()
    assert reached == set(dict(matcher.named_parameters()))


def test_without_a_loss_on_the_map_the_semantic_branch_learns_through_the_prompt():
    matcher = make()
    matcher(*inputs())[0].square().sum().backward()
    assert all(p.grad.any() for p in matcher.semantic.parameters())


def count(in_channels: int, out: int, classes: int, width: int, norm: bool, pdc: bool) -> int:
    """Parameters of one branch in closed form."""
    extra = 2 * width if norm else width  # scale and shift, or a bias, per convolution
    first = (in_channels + classes) * width + extra
    share = width // 4
    context = 4 * 9 * share**2 + extra + width**2 + extra if pdc else 9 * width**2 + extra
    return first + context + width * out + out


@pytest.mark.parametrize('context', ['pdc', 'conv3x3'])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None], ids=['norm', 'plain'])
@pytest.mark.parametrize('in_channels, classes, width', [(64, 150, 256), (2048, 19, 128)])
def test_number_of_parameters(in_channels, classes, width, norm_cfg, context):
    with torch.device('meta'):
        matcher = SPM(in_channels, classes, channels=width, context=context, norm_cfg=norm_cfg)
    pair = (bool(norm_cfg), context == 'pdc')
    expected = count(in_channels, classes, classes, width, *pair)
    expected += count(in_channels, in_channels, classes, width, *pair)
    assert sum(p.numel() for p in matcher.parameters()) == expected


def test_published_width_on_ade20k_is_5_7_million():
    """Five matchers of width 256 before the stages of a ResNet and its head."""
    with torch.device('meta'):
        five = nn.ModuleList(SPM(c, 150) for c in (64, 256, 512, 1024, 2048))
    assert round(sum(p.numel() for p in five.parameters()) / 1e6, 1) == 5.7


def test_pyramid_sees_as_far_as_its_dilations():
    """One pixel at the centre reaches r pixels in the channels of rate r, and no further."""
    pyramid = PyramidDilatedConv(4)
    nn.init.eye_(pyramid.fuse.conv.weight.data.view(4, 4))
    nn.init.zeros_(pyramid.fuse.conv.bias)
    for branch in pyramid.branches:
        nn.init.ones_(branch.conv.weight)
        nn.init.zeros_(branch.conv.bias)
    picture = torch.zeros(1, 4, 21, 21)
    picture[..., 10, 10] = 1
    for channel, rate in zip(pyramid(picture)[0], (1, 2, 4, 8)):
        steps = (10 - rate, 10, 10 + rate)
        assert channel.nonzero().tolist() == [[y, x] for y in steps for x in steps]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(channels=6), r'multiple of the 4 dilations \(1, 2, 4, 8\), found 6'),
        (dict(channels=8, dilations=()), 'found 8'),
        (dict(context='PDC'), r"SPM\.context: expected one of .*'conv3x3'.*found 'PDC'"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        SPM(C, S, **options)


def test_a_plain_convolution_shares_nothing_out():
    matcher = SPM(C, S, channels=6, context='conv3x3')
    shapes = [tuple(out.shape) for out in matcher(*(x.float() for x in inputs()))]
    assert shapes == [(2, C, H, W), (2, S, H, W), (2, S, H, W)]


def test_other_norms_and_activations():
    config = dict(type='mmprompt.SPM', in_channels=C, num_classes=S, channels=HIDDEN)
    matcher = MODELS.build(
        dict(config, norm_cfg=dict(type='GN', num_groups=2), act_cfg=dict(type='GELU'))
    )
    kinds = {type(module) for module in matcher.modules()}
    assert nn.GroupNorm in kinds and nn.GELU in kinds and nn.BatchNorm2d not in kinds


def test_an_init_cfg_of_the_user_is_followed():
    init_cfg = dict(type='Constant', layer='Conv2d', val=0.5)
    matcher = SPM(C, S, channels=HIDDEN, init_cfg=init_cfg)
    before = copy.deepcopy(matcher.state_dict())
    matcher.init_weights()
    assert (matcher.prompt.project.weight == 0.5).all()
    plain = SPM(C, S, channels=HIDDEN)
    plain.load_state_dict(before)
    plain.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16_and_channels_last(memory_format):
    matcher = make().float().to(memory_format=memory_format)
    feature, semantic = (v.float().contiguous(memory_format=memory_format) for v in inputs())
    exact = matcher(feature, semantic)
    with torch.autocast('cpu', torch.bfloat16):
        rough = matcher(feature, semantic)
    assert rough[0].dtype == torch.float32  # so that the sum with the feature keeps its own
    assert rough[0].is_contiguous(memory_format=memory_format)
    for one, other in zip(rough, exact):
        torch.testing.assert_close(one.float(), other, rtol=0.1, atol=0.2)
