"""Gradients with respect to what prompts learn, against central differences in double precision."""

import pytest
import torch
from foundation import golden, rule

from mmprompt.foundation.seem import SEEMDecoder, SEEMFeatures, Strokes

DIM, QUERIES, BATCH = 8, 6, 2
SHAPES = dict(content=(QUERIES - 1, DIM), position=(QUERIES - 1, DIM), semantic=(4, DIM))


def scalar(out, weights: torch.Generator) -> torch.Tensor:
    """Smooth in all logits and masks of all predictions, each with a weight of its own."""
    total = 0.0
    for one in (*out.aux, out):
        maps = [one.pred_logits, one.pred_masks]
        if one.strokes is not None:
            maps.append(one.strokes.pred_masks)
        for x in maps:
            share = torch.randn(x.shape, generator=weights, dtype=x.dtype)
            total = total + (share * (x / 4).tanh()).mean()
    return total


class Probe:
    """The scalar as a function of the inputs; notes the masks of every cross-attention.

    The masks are thresholded, so the scalar is differentiable only where no bit flips, and the
    gradient is that of fixed masks.
    """

    def __init__(self, decoder, features, strokes=None, aux=True):
        self.aux = aux
        self.decoder, self.features, self.strokes = decoder, features, strokes
        self.bits = None
        self.flips = 0

    def __call__(self, semantic, **spatial):
        with golden.attention_bits(self.decoder) as bits:
            out = self.decoder(self.features, semantic, spatial, self.strokes, self.aux)
        if self.bits is None:
            self.bits = [mask.clone() for mask in bits]
            assert any(mask.any() and not mask.all() for mask in bits)
        self.flips += sum(int((a != b).sum()) for a, b in zip(bits, self.bits, strict=True))
        return scalar(out, torch.Generator().manual_seed(5))


def small(kind: str) -> tuple[Probe, dict[str, torch.Tensor]]:
    """A toy decoder and leaf inputs: plain, with strokes, or seeing spatial tokens."""
    torch.manual_seed(0)
    decoder = SEEMDecoder(
        dim=DIM,
        num_layers=4,
        num_heads=2,
        ffn_dim=16,
        num_queries=QUERIES,
        mask_dim=DIM,
        proj_dim=DIM,
        num_memory=3,
        object_tokens=kind == 'tokens',
    ).double()
    maps = [torch.randn(BATCH, DIM, 2 << i, 3 << i, dtype=torch.float64) for i in range(3)]
    features = SEEMFeatures(maps, torch.randn(BATCH, DIM, 16, 24, dtype=torch.float64))
    strokes = None
    if kind == 'strokes':
        drawn = torch.rand(2, BATCH, 64, 96) > 0.99
        previous = torch.randn(BATCH, 1, 16, 24, dtype=torch.float64)
        strokes = Strokes(drawn[0], drawn[1], previous=previous)
    shapes = dict(SHAPES, tokens=(3, 2, DIM)) if kind == 'tokens' else SHAPES
    inputs = {
        name: torch.randn(shape, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }
    return Probe(decoder.eval(), features, strokes), inputs


@pytest.mark.parametrize('kind', ['plain', 'strokes', 'tokens'])
def test_every_entry_of_a_small_decoder(kind, step=1e-6):
    probe, inputs = small(kind)
    gradients = dict(zip(inputs, torch.autograd.grad(probe(**inputs), list(inputs.values()))))
    with torch.no_grad():
        for name, value in inputs.items():
            found = torch.empty_like(value)
            for index in range(value.numel()):
                entry = value.view(-1)[index : index + 1]
                start = entry.item()
                ends = []
                for sign in (1, -1):
                    entry.fill_(start + sign * step)
                    ends.append(probe(**inputs).item())
                entry.fill_(start)
                found.view(-1)[index] = (ends[0] - ends[1]) / (2 * step)
            assert found.abs().max() > 1e-3, name
            torch.testing.assert_close(gradients[name], found, rtol=1e-6, atol=1e-8, msg=name)
    assert probe.flips == 0


def test_along_a_direction_at_full_size(step=1e-6):
    """101 queries of 512, nine layers, on the golden inputs."""
    decoder = golden.built(SEEMDecoder, 'decoder.', torch.float64)
    probe = Probe(decoder, golden.features(torch.float64), aux=False)
    inputs = {
        'content': decoder.query_feat[:100].detach().clone().requires_grad_(),
        'position': decoder.query_embed[:100].detach().clone().requires_grad_(),
        'semantic': rule.tensor(rule.text(8), torch.float64).requires_grad_(),
    }
    gradients = torch.autograd.grad(probe(**inputs), list(inputs.values()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, gradient in zip(inputs, gradients):
            # Half of it uphill: all of 51,200 random entries would nearly cancel out.
            way = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            way = way / way.norm() + gradient / gradient.norm()
            ends = [
                probe(**{**inputs, name: inputs[name] + sign * step * way}).item()
                for sign in (1, -1)
            ]
            found = (ends[0] - ends[1]) / (2 * step)
            expected = (gradient * way).sum().item()
            assert found == pytest.approx(expected, rel=1e-5), name
    assert probe.flips == 0
