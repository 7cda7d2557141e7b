"""Frozen layers whose graph keeps less: the values and gradients of the plain layers."""

from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch
from torch import nn

from mmprompt.common.freeze import freeze
from mmprompt.methods.spm import backbone as module
from mmprompt.methods.spm.lean import LeanGraph, lean_graph
from mmprompt.registry import MODELS

CONVOLUTIONS = {
    'plain': dict(kernel_size=3),
    'one by one': dict(kernel_size=1, bias=False),
    'all options': dict(kernel_size=(3, 1), stride=(2, 1), padding=2, dilation=2, groups=2),
    'padding by name': dict(kernel_size=3, padding='same'),
}


def run(layer, x, mode):
    """Output, gradient of the input, values kept."""
    kept = []

    def note(tensor):
        kept.append(tensor)
        return tensor

    x = x.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), mode:
        out = layer(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (slope,) = torch.autograd.grad((out * weights).sum(), x)
    return out.detach(), slope, sum(t.numel() for t in kept)


def both(layer, x):
    plain, lean = run(layer, x, nullcontext()), run(layer, x, LeanGraph())
    assert torch.equal(lean[0], plain[0])
    torch.testing.assert_close(lean[1], plain[1])
    return plain[2], lean[2]


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('options', CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(options, memory_format):
    torch.manual_seed(0)
    layer = freeze(nn.Conv2d(4, 6, **options))
    x = torch.randn(2, 4, 9, 11).to(memory_format=memory_format)
    plain, lean = both(layer, x)
    # A padding that is a name goes the usual way.
    assert lean == (plain if options.get('padding') == 'same' else plain - x.numel())


def test_normalisation_by_stored_statistics():
    torch.manual_seed(0)
    for affine in (True, False):
        layer = nn.BatchNorm2d(4, affine=affine)
        layer.running_mean.normal_(), layer.running_var.uniform_(0.1, 3)
        if affine:
            nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
        x = torch.randn(2, 4, 9, 11)
        plain, lean = both(freeze(layer), x)
        assert lean == 4 and plain >= x.numel()


def test_what_is_trained_goes_the_usual_way():
    x = torch.randn(2, 4, 9, 11)
    for layer in (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval()):
        plain, lean = both(layer, x)
        assert plain == lean
    biased = nn.Conv2d(4, 4, 3)
    biased.weight.requires_grad_(False)
    with LeanGraph():
        biased(x).sum().backward()
    assert biased.bias.grad is not None


def test_without_a_gradient_there_is_no_graph():
    layer = freeze(nn.Conv2d(4, 4, 3))
    with LeanGraph():
        assert layer(torch.randn(1, 4, 5, 5)).grad_fn is None
        with torch.no_grad():
            assert layer(torch.randn(1, 4, 5, 5, requires_grad=True)).grad_fn is None


def test_autocast():
    torch.manual_seed(0)
    layer = freeze(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    x = torch.randn(2, 4, 9, 11)
    with torch.autocast('cpu', torch.bfloat16):
        plain, lean = both(layer, x)
    assert lean < plain


def test_activation_checkpoints_are_left_alone():
    class Checkpointed(nn.Module):
        with_cp = True

    assert not isinstance(lean_graph(nn.Sequential(Checkpointed())), LeanGraph)
    assert isinstance(lean_graph(nn.Sequential(nn.ReLU())), LeanGraph)


def test_a_prompted_backbone_keeps_about_half():
    """The wrapper enters it in training; gradients are those without it."""
    torch.manual_seed(0)
    wrapped = dict(type='mmseg.ResNetV1c', depth=18, stem_channels=8, base_channels=16)
    model = MODELS.build(
        dict(
            type='SPMBackbone',
            backbone=wrapped,
            prompt_at=['layer1'],
            num_classes=3,
            prompter=dict(type='SPM', channels=4, zero_start=False),
        )
    )
    images = torch.randn(2, 3, 64, 64)

    def gradients():
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            out = model(images)
        model.zero_grad()
        sum(level.square().mean() for level in out).backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        maps = {t.data_ptr(): t.numel() for t in kept if len(t) == len(images)}  # no weights
        return found, sum(maps.values())

    model.train()
    found, kept = gradients()
    assert found and all(p.grad is None for p in model.backbone.parameters())
    with patch.object(module, 'lean_graph', lambda _: nullcontext()):
        expected, before = gradients()
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-3, atol=1e-6)
    assert kept < 0.65 * before, (kept, before)
    # In eval mode (predictions, exports) the layers run as they are.
    model.eval()
    with patch.object(module, 'lean_graph', side_effect=AssertionError):
        model(images)
