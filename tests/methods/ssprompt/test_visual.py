"""VSPL: points that move, and the grid where they start."""

import pytest
import torch
from toy import DIM, PROMPTS, toy_seem

from mmprompt.foundation.seem.layers import sine_position
from mmprompt.methods.ssprompt.prompts import DefaultPrompt
from mmprompt.methods.ssprompt.sources import GridSource
from mmprompt.methods.ssprompt.visual import VSPL
from mmprompt.registry import MODELS


def filled(prompt, decoder):
    prompt.fill(prompt.source.default(decoder, PROMPTS))
    return prompt


def test_starts_at_the_grid_bit_for_bit():
    decoder = MODELS.build(toy_seem(object_tokens=True)['decoder'])
    grid = filled(DefaultPrompt(PROMPTS, DIM, source='grid'), decoder)
    prompt = filled(VSPL(PROMPTS, DIM), decoder)
    assert torch.equal(prompt(), grid())
    assert torch.equal(
        GridSource.pack(prompt(), decoder)['tokens'], GridSource.pack(grid(), decoder)['tokens']
    )
    assert sum(p.numel() for p in prompt.parameters()) == 2 * PROMPTS
    assert list(prompt.state_dict()) == ['offset']


def test_a_moved_point_is_encoded_where_it_stands():
    """At the cells of a map, SEEM's own position embedding of that map; it counts them from 1."""
    prompt = VSPL(PROMPTS, DIM)
    cells = torch.tensor([[0, 3], [2, 1], [5, 7]])
    like = torch.zeros(1, dtype=torch.float64)
    expected = sine_position(6, 8, DIM, like).reshape(6, 8, DIM)[cells[:, 0], cells[:, 1]]
    places = (cells + 1) / torch.tensor([6, 8])
    with torch.no_grad():
        prompt.offset[:3] += places - prompt.points[:3].float()
    torch.testing.assert_close(prompt()[:3], expected.float(), atol=1e-4, rtol=0)


def test_gradient_is_that_of_the_coordinates():
    prompt = VSPL(PROMPTS, DIM).double()
    torch.manual_seed(0)
    direction, weight = torch.randn(PROMPTS, 2).double(), torch.randn(PROMPTS, DIM).double()
    (prompt() * weight).sum().backward()
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            prompt.offset.copy_(sign * step * direction)
            values.append((prompt() * weight).sum())
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((prompt.offset.grad * direction).sum(), slope, rtol=1e-6, atol=1e-6)


def test_points_end_at_the_border_and_come_back():
    prompt = VSPL(PROMPTS, DIM).train()
    with torch.no_grad():
        prompt.offset[0] -= 5.0
        prompt.offset[-1] += 5.0
    prompt.eval()
    assert torch.equal(prompt.points[0], torch.zeros(2).double())
    assert prompt.offset[0, 0] == -5  # testing changes nothing
    prompt.train()()
    assert torch.equal(prompt.points[-1], torch.ones(2).double())
    torch.testing.assert_close(prompt.offset[0], torch.full((2,), -1 / 6))
    optimiser = torch.optim.SGD(prompt.parameters(), lr=0.01)
    (-prompt.points[0]).sum().backward()
    optimiser.step()
    torch.testing.assert_close(prompt.points[0], torch.full((2,), 0.01).double())


def test_a_number_that_is_no_square():
    with pytest.raises(ValueError, match='num_prompts=10'):
        VSPL(10, DIM)
