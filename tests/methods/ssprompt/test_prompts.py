"""The blended rows of Eq. 4 and Eq. 6, in every parametrisation that a config can name."""

import pytest
import torch

from mmprompt.foundation.seem.decoder import SEEMDecoder
from mmprompt.foundation.seem.layers import sine_position
from mmprompt.methods.ssprompt.prompts import DefaultPrompt, SemPrompt, SpaPrompt
from mmprompt.methods.ssprompt.sources import SOURCES, grid_points, point_positions

ROWS, DIM = 9, 8


@pytest.fixture
def decoder():
    return SEEMDecoder(
        dim=DIM,
        num_layers=1,
        num_heads=2,
        ffn_dim=8,
        num_queries=ROWS + 1,
        mask_dim=DIM,
        proj_dim=DIM,
        num_memory=2,
        object_tokens=True,
    )


@pytest.fixture
def default():
    torch.manual_seed(0)
    return torch.randn(ROWS, DIM)


WEIGHTS = ['sigmoid', 'clamp', 'fixed', dict(type='sigmoid', init=0.3), dict(type='fixed', value=1)]


@pytest.mark.parametrize('weight', WEIGHTS, ids=str)
@pytest.mark.parametrize('decay_to', ['default', 'zero'])
def test_step_zero_is_the_default_bit_for_bit(default, weight, decay_to):
    prompt = SemPrompt(ROWS, DIM, weight=weight, decay_to=decay_to)
    prompt.fill(default)
    assert torch.equal(prompt(), default)


@pytest.mark.parametrize('weight', WEIGHTS, ids=str)
@pytest.mark.parametrize('decay_to', ['default', 'zero'])
@pytest.mark.parametrize('init', ['zero', 'normal'])
def test_blend_is_equation_6(default, weight, decay_to, init):
    prompt = SemPrompt(ROWS, DIM, weight=weight, decay_to=decay_to, init=init)
    prompt.fill(default)
    w = prompt.weight()[:, None]
    expected = w * prompt.embedding + (1 - w) * default
    torch.testing.assert_close(prompt(), expected)


def test_starts(default):
    zero, normal = (SemPrompt(ROWS, DIM, init=init) for init in ('zero', 'normal'))
    zero.fill(default)
    normal.fill(default)
    torch.testing.assert_close(zero.embedding, torch.zeros(ROWS, DIM))
    assert 0.01 < normal.embedding.std() < 0.03


@pytest.mark.parametrize('decay_to, target', [('default', 1.0), ('zero', 0.0)])
def test_weight_decay_pulls_to_its_target(default, decay_to, target):
    prompt = SemPrompt(ROWS, DIM, init='normal', decay_to=decay_to)
    prompt.fill(default)
    optimiser = torch.optim.SGD(prompt.parameters(), lr=0.5, weight_decay=0.5)
    for _ in range(80):
        optimiser.zero_grad()
        (0 * prompt().sum()).backward()
        optimiser.step()
    torch.testing.assert_close(prompt.embedding, target * default, atol=1e-5, rtol=0)


def test_clamped_weight_returns_into_its_interval(default):
    prompt = SemPrompt(ROWS, DIM, weight='clamp', init='zero')
    prompt.fill(default)
    with torch.no_grad():
        prompt.weight.value.fill_(1.7)
    prompt().sum().backward()
    assert torch.equal(prompt.weight(), torch.ones(ROWS))
    assert prompt.weight.value.grad.abs().min() > 0


def test_renormalise(default):
    prompt = SemPrompt(ROWS, DIM, renormalise=True)
    prompt.fill(default)
    torch.testing.assert_close(prompt().norm(dim=-1), torch.ones(ROWS))


@pytest.mark.parametrize('decay_to', ['default', 'zero'])
def test_filling_after_loading_keeps_what_was_loaded(default, decay_to):
    trained = SemPrompt(ROWS, DIM, decay_to=decay_to)
    trained.fill(default)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    fresh = SemPrompt(ROWS, DIM, decay_to=decay_to)
    fresh.load_state_dict(trained.state_dict())
    fresh.fill(default)
    assert torch.equal(fresh(), trained())


def test_state_holds_only_what_is_learned():
    assert set(SemPrompt(ROWS, DIM).state_dict()) == {'offset', 'weight.theta'}
    assert set(SemPrompt(ROWS, DIM, weight='fixed', decay_to='zero').state_dict()) == {'learned'}
    assert not DefaultPrompt(ROWS, DIM).state_dict()


def test_parameter_counts_of_the_paper():
    count = lambda prompt: sum(p.numel() for p in prompt.parameters())  # noqa: E731
    assert count(SpaPrompt()) == 51_300
    assert count(SpaPrompt(source='both')) == 2 * 51_300
    assert count(SemPrompt(19)) == 9_747
    assert count(SemPrompt(150)) == 76_950
    assert count(SpaPrompt()) + count(SemPrompt(19)) == 61_047
    assert count(SpaPrompt(weight='fixed')) == 51_200
    assert count(DefaultPrompt()) == 0


# `points` belongs to SAM's decoder and is tested beside it.
@pytest.mark.parametrize('source', sorted(set(SOURCES) - {'points'}))
def test_spatial_sources(source, decoder):
    prompt = SpaPrompt(ROWS, DIM, source=source)
    prompt.fill(prompt.source.default(decoder, ROWS))
    packed = prompt.source.pack(prompt(), decoder)
    keys = dict(query={'content'}, query_pos={'position'}, both={'content', 'position'})
    assert set(packed) == keys.get(source, {'tokens'})
    if 'content' in packed:
        assert torch.equal(packed['content'], decoder.query_feat[:ROWS])
    if 'position' in packed:
        assert torch.equal(packed['position'], decoder.query_embed[:ROWS])
    if 'tokens' in packed:
        points = point_positions(grid_points(ROWS), DIM).float()
        for tokens, embed in zip(packed['tokens'], decoder.mask_spatial_embed, strict=True):
            torch.testing.assert_close(tokens, points @ embed + decoder.pn_indicator[0])


def test_grid_blend_commutes_with_the_frozen_map(decoder):
    """Blending before the affine map is Eq. 4 after it, on every level."""
    prompt = SpaPrompt(
        ROWS, DIM, source='grid', init='normal', weight=dict(type='fixed', value=0.3)
    )
    prompt.fill(prompt.source.default(decoder, ROWS))
    pack = lambda rows: prompt.source.pack(rows, decoder)['tokens']  # noqa: E731
    learned, default = pack(prompt.embedding), pack(prompt.default)
    for level, tokens in enumerate(pack(prompt())):
        torch.testing.assert_close(tokens, 0.3 * learned[level] + 0.7 * default[level])


def test_point_positions_are_those_of_the_image_features():
    side = 4
    axis = torch.arange(1, side + 1, dtype=torch.float64) / side  # what SEEM gives to cell 1..side
    mine = point_positions(torch.cartesian_prod(axis, axis), 16)
    torch.testing.assert_close(mine, sine_position(side, side, 16, mine), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    'build, names',
    [
        (lambda: SpaPrompt(source='pixels'), ('source', 'pixels', 'query_pos')),
        (lambda: SemPrompt(3, weight='softmax'), ('weight', 'softmax', 'clamp')),
        (lambda: SemPrompt(3, init='text'), ('init', 'text', 'normal')),
        (lambda: SemPrompt(3, decay_to='one'), ('decay_to', 'one', 'zero')),
        (lambda: grid_points(7), ('7', 'square')),
    ],
)
def test_errors_name_argument_and_options(build, names):
    with pytest.raises(ValueError) as error:
        build()
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize(
    'weight, words',
    [
        (dict(type='sigmoid', init=0), 'weight.init.*sigmoid, found 0'),
        (dict(type='sigmoid', init=1.0), 'weight.init.*sigmoid, found 1.0'),
        (dict(type='clamp', init=1.5), 'weight.init.*clamp, found 1.5'),
        (dict(type='fixed', value=-1), 'weight.value.*fixed, found -1'),
        (dict(init=0.5), 'weight.type.*found None'),
        ('soft', "weight.type.*found 'soft'"),
    ],
)
def test_wrong_weights_are_named(weight, words):
    with pytest.raises(ValueError, match=words):
        SpaPrompt(ROWS, DIM, weight=weight)
    SpaPrompt(ROWS, DIM, weight=dict(type='clamp', init=1))
