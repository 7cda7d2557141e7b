"""Gradients that leave frozen keys and values out, against PyTorch's own."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmprompt.foundation.seem import SEEMDecoder, SEEMFeatures, frozen_attention
from mmprompt.foundation.seem.frozen_attention import attention

B, H, L, K, D = 2, 3, 5, 7, 4


def parts(dtype=torch.float64):
    """Query, key, value and the gradient of the result, laid out as heads of one product."""
    generator = torch.Generator().manual_seed(0)
    sizes = (L, K, K, L)
    made = [torch.randn(B, n, H, D, dtype=dtype, generator=generator) for n in sizes]
    return [x.transpose(1, 2) for x in made]


def mask(*shape):
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.5
    allowed[..., 0] = True
    assert not allowed.all()
    return allowed


def plain(query, key, value, allowed):
    """By the definition, from whole matrices."""
    scores = (query @ key.transpose(2, 3)) / D**0.5
    return scores.masked_fill(~allowed, float('-inf')).softmax(-1) @ value


MASKS = {'shared by heads': (B, 1, L, K), 'per head': (B, H, L, K), 'for all': (L, K)}


@pytest.mark.parametrize('shape', MASKS.values(), ids=MASKS)
def test_the_gradient_of_queries_is_that_of_the_definition(shape):
    query, key, value, upward = parts()
    allowed, query = mask(*shape), query.requires_grad_()
    out = attention(query, key, value, allowed)
    expected = plain(query, key, value, allowed)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=1e-13)
    (found,) = torch.autograd.grad(out, query, upward)
    (wanted,) = torch.autograd.grad(expected, query, upward)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    assert wanted.abs().max() > 0.1


@pytest.mark.parametrize('learned', [(0,), (0, 1), (0, 2), (1, 2), ()])
def test_whatever_asks_for_a_gradient_gets_it(learned):
    *inputs, upward = parts()
    for index in learned:
        inputs[index].requires_grad_()
    chosen, allowed = [inputs[i] for i in learned], mask(B, 1, L, K)
    out = attention(*inputs, allowed)
    assert out.requires_grad == bool(learned)
    if learned:
        found = torch.autograd.grad(out, chosen, upward)
        wanted = torch.autograd.grad(plain(*inputs, allowed), chosen, upward)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('options', [dict(), dict(is_causal=True), dict(allowed=mask(L, L))])
def test_results_are_the_kernels(options):
    query, _, _, value = parts(torch.float32)
    given = dict(options, attn_mask=options.get('allowed'))
    given.pop('allowed', None)
    expected = F.scaled_dot_product_attention(query, value, value, **given)
    assert torch.equal(attention(query, value, value, **options), expected)
    assert torch.equal(attention(query.requires_grad_(), value, value, **options), expected)


def decoded(frozen: bool, queries: int = 6):
    """Gradient of a spatial prompt through a frozen decoder of four layers."""
    torch.manual_seed(0)
    sizes = dict(num_heads=2, ffn_dim=16, num_queries=queries, mask_dim=8, proj_dim=8)
    decoder = SEEMDecoder(dim=8, num_layers=4, **sizes).double().eval().requires_grad_(False)
    maps = [torch.randn(2, 8, 2 << i, 3 << i, dtype=torch.float64) for i in range(3)]
    features = SEEMFeatures(maps, torch.randn(2, 8, 16, 24, dtype=torch.float64))
    prompt = torch.randn(queries - 1, 8, dtype=torch.float64).requires_grad_()
    semantic = torch.randn(4, 8, dtype=torch.float64)
    for each in maps:
        each.requires_grad_(not frozen)
    out = decoder(features, semantic, prompt)
    (out.pred_masks.tanh().sum() + out.pred_logits.tanh().sum()).backward()
    return prompt.grad


def test_a_spatial_prompt_learns_the_same_before_a_frozen_image(monkeypatch):
    """Maps that need gradients take PyTorch's own way, frozen ones the shorter one."""
    calls, shorter = [], frozen_attention._QueryGradient.apply

    def apply(*inputs):
        calls.append(inputs)
        return shorter(*inputs)

    monkeypatch.setattr(frozen_attention, '_QueryGradient', SimpleNamespace(apply=apply))
    wanted = decoded(frozen=False)
    assert not calls
    found = decoded(frozen=True)
    assert len(calls) == 4
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)
    assert wanted.abs().max() > 1e-4
