"""Where backbones can be cut, on real ones of several libraries and on stand-ins."""

import collections
import copy
import math

import mmseg.models  # noqa: F401  (registers the backbones)
import pytest
import torch
from mmseg.registry import MODELS as MMSEG
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.methods.spm.stages import (
    CHANNEL_LAST,
    MAP,
    OUT,
    TOKENS,
    Layout,
    _grids,
    evaluating,
    last_map,
    probe,
    recognise,
    replace_last_map,
)

SIZES = [(64, 96), (70, 90), (96, 64), (33, 129)]
PICTURE = (3, 64, 96)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


RESNET = dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8)
VIT = dict(
    type='VisionTransformer',
    img_size=(64, 96),
    patch_size=16,
    embed_dims=8,
    num_layers=3,
    num_heads=2,
    mlp_ratio=1,
    out_indices=(0, 2),
)
SWIN = dict(
    type='SwinTransformer',
    embed_dims=4,
    depths=(1, 2, 1, 1),
    num_heads=(1, 1, 2, 2),
    window_size=4,
)
MIT = dict(type='MixVisionTransformer', embed_dims=4, num_layers=[1, 2, 1, 1])
MIT['num_heads'] = [1, 1, 2, 2]
#: Config, and at each place the kind, the channels, the tokens before the picture's, the stride.
BACKBONES = {
    'resnet': (
        RESNET,
        {
            'layer1': (MAP, 8, 0, 4),
            'layer2.1': (MAP, 16, 0, 8),
            'layer3': (MAP, 16, 0, 8),
            'layer4': (MAP, 32, 0, 16),
            OUT: (MAP, 64, 0, 32),
        },
    ),
    'vit': (VIT, {'layers.0': (TOKENS, 8, 1, 16), 'layers.2': (TOKENS, 8, 1, 16)}),
    'vit without class token': (
        dict(VIT, with_cls_token=False),
        {'layers.0': (TOKENS, 8, 0, 16), 'layers.1': (TOKENS, 8, 0, 16), OUT: (MAP, 8, 0, 16)},
    ),
    'vit with a class token beside each level': (
        dict(VIT, output_cls_token=True),
        {'layers.1': (TOKENS, 8, 1, 16), OUT: (MAP, 8, 0, 16)},
    ),
    'swin': (
        SWIN,
        {
            'stages.0': (TOKENS, 4, 0, 4),
            'stages.1.blocks.1': (TOKENS, 8, 0, 8),
            'stages.2': (TOKENS, 16, 0, 16),
            'stages.3': (TOKENS, 32, 0, 32),
            OUT: (MAP, 32, 0, 32),
        },
    ),
    'mit': (
        MIT,
        {
            'layers.1.0': (MAP, 4, 0, 4),
            'layers.1.1.1': (TOKENS, 4, 0, 8),
            'layers.3.0': (MAP, 8, 0, 16),
            OUT: (MAP, 8, 0, 32),
        },
    ),
}
TIMM_ARGUMENTS = dict(features_only=True, pretrained=False)
TIMM = {
    'timm convnext': (
        dict(model_name='convnext_atto', depths=(1, 1, 1, 1), dims=(4, 8, 12, 16)),
        {'timm_model.stages_1': (MAP, 4, 0, 4), OUT: (MAP, 16, 0, 32)},
    ),
    'timm swin': (
        dict(
            model_name='swin_tiny_patch4_window7_224',
            img_size=(64, 96),
            embed_dim=12,
            depths=(1, 1, 1, 1),
            strict_img_size=False,
        ),
        {'timm_model.layers_1': (CHANNEL_LAST, 12, 0, 4), OUT: (CHANNEL_LAST, 96, 0, 32)},
    ),
    'timm vit': (
        dict(model_name='vit_tiny_patch16_224', depth=3, dynamic_img_size=True),
        {'timm_model.model.blocks.1': (TOKENS, 192, 1, 16), OUT: (MAP, 192, 0, 16)},
    ),
    'timm vit with registers': (
        dict(model_name='vit_small_patch14_reg4_dinov2', depth=3, dynamic_img_size=True),
        {'timm_model.model.blocks.1': (TOKENS, 384, 5, 14), OUT: (MAP, 384, 0, 14)},
    ),
}


def build(config: dict) -> nn.Module:
    backbone = MMSEG.build(dict(copy.deepcopy(config), type=f'mmseg.{config["type"]}'))
    backbone.eval()  # which returns None for ResNets of MMSegmentation
    return backbone


def make(name: str) -> tuple[nn.Module, dict]:
    if name in BACKBONES:
        config, places = BACKBONES[name]
        return build(config), places
    pytest.importorskip('timm')
    config, places = TIMM[name]
    return build(dict(config, type='TIMMBackbone', **TIMM_ARGUMENTS)), places


def runs(backbone: nn.Module, places, picture: Tensor) -> tuple[dict, object]:
    """What the modules are given, noted independently of the probe, and the result."""
    given, handles = {}, []
    for name in places:
        if name != OUT:
            module = backbone.get_submodule(name)
            handles.append(
                module.register_forward_pre_hook(lambda m, a, name=name: given.update({name: a}))
            )
    with torch.no_grad():
        result = backbone(picture)
    for handle in handles:
        handle.remove()
    return given, result


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('name', [*BACKBONES, *TIMM])
def test_layouts_of_real_backbones(name, size):
    """Found once at 64x96; at other sizes each position of the map is the input's own."""
    backbone, places = make(name)
    patch = 14 if 'registers' in name else None
    layouts = probe(backbone, list(places), (3, 56, 84) if patch else PICTURE)
    found = {n: (layout.kind, layout.channels, layout.prefix) for n, layout in layouts.items()}
    assert found == {n: expected[:3] for n, expected in places.items()}
    if name.startswith(('timm vit', 'timm swin')):  # which take whole patches alone
        size = tuple(side // (patch or 16) * (patch or 16) for side in size)
    rounded = math.floor if 'convnext' in name else math.ceil
    given, result = runs(backbone, places, torch.randn(2, 3, *size))
    for place, layout in layouts.items():
        value, *others = given.get(place) or (last_map(result),)
        feature = layout.to_map(value, layout.grid(value, others, size))
        stride = places[place][3]
        grid = tuple(rounded(side / stride) for side in size)
        assert feature.shape == (2, layout.channels, *grid)
        cell = (1, slice(None), grid[0] - 1, 1)  # last row, second column
        if layout.kind == TOKENS:
            expected = value[1, layout.prefix + (grid[0] - 1) * grid[1] + 1]
        else:
            expected = value[cell] if layout.kind == MAP else value[1, grid[0] - 1, 1]
        assert torch.equal(feature[cell], expected)


@pytest.mark.parametrize(
    'layout, shape, grid',
    [
        (Layout(MAP, 2), (3, 2, 4, 5), None),
        (Layout(CHANNEL_LAST, 2), (3, 4, 5, 2), None),
        (Layout(TOKENS, 2), (3, 20, 2), (4, 5)),
        (Layout(TOKENS, 2, 1), (3, 21, 2), (4, 5)),
        (Layout(TOKENS, 2, 5), (3, 25, 2), (4, 5)),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Layout) else str(value),
)
def test_a_prompt_goes_to_where_its_feature_came_from(layout, shape, grid):
    value, prompt = torch.randn(shape), torch.randn(3, 2, 4, 5)
    result = layout.add(value, prompt)
    assert result.shape == shape and result is not value
    before, after = layout.to_map(value, grid), layout.to_map(result, grid)
    assert before.shape == (3, 2, 4, 5)
    torch.testing.assert_close(after - before, prompt)
    assert torch.equal(result[:, : layout.prefix], value[:, : layout.prefix])


def test_sizes_of_a_sequence():
    layout = Layout(TOKENS, 2, 1, (16, 16))
    value = torch.zeros(2, 1 + 6 * 4, 2)
    image = (96, 64)
    assert layout.grid(value, (), image) == (6, 4)
    assert layout.grid(value, [None, (5, 5), (3, 8)], image) == (3, 8)  # a module's own word
    assert layout.grid(torch.zeros(2, 1 + 5 * 6, 2), (), (70, 90)) == (5, 6)  # rounded up
    assert layout.grid(torch.zeros(2, 1 + 4 * 5, 2), (), (70, 90)) == (4, 5)  # rounded down
    assert Layout(MAP, 2).grid(torch.zeros(2, 2, 3, 4), (), image) is None
    # Patches of 14 on a probe of 64 x 96 look like 64 / 5 x 96 / 7.
    padded = Layout(TOKENS, 2, 0, (64 / 5, 96 / 7))
    assert padded.grid(torch.zeros(2, 16 * 32, 2), (), (224, 448)) == (16, 32)
    with pytest.raises(UserError, match=r'1 tokens and one for each 16 x 16 .* 96 x 64, found 28'):
        layout.grid(torch.zeros(2, 28, 2), (), image)


def rounded_grids(image: tuple[int, int], length: int) -> set[tuple[int, int]]:
    """All (h, w) of `length` cells that some stride makes, by trying strides."""
    # Between two neighbouring quotients side / n nothing changes.
    edges = sorted({side / n for side in image for n in range(1, length + 2)})
    middles = [(a + b) / 2 for a, b in zip(edges, edges[1:])]
    found = set()
    for stride in [*edges, *middles, 2 * edges[-1]]:
        for rounding in (math.ceil, math.floor):
            grid = tuple(rounding(round(side / stride, 9)) for side in image)
            if grid[0] * grid[1] == length:
                found.add(grid)
    return found


@pytest.mark.parametrize('image', [(64, 96), (33, 129), (12, 12), (7, 30)])
def test_grids_are_those_of_some_stride(image):
    for length in [*range(1, 40), 96, 120]:
        found = list(_grids(length, image))
        assert set(found) == rounded_grids(image, length), length
        exact = [(h, w) for h, w in found if not image[0] % h and image[0] * w == image[1] * h]
        assert not exact or found[0] == exact[0]


def test_what_is_no_map():
    nothing = nn.Identity()
    for value in (
        None,
        'text',
        torch.zeros(1, 8),
        torch.zeros(1, 8, 6, 6),  # square, the picture is not
        torch.zeros(1, 19, 8),  # a sequence of no grid
        torch.zeros(6, 4, 8),  # windows
        torch.zeros(1, 2, 8, 4, 6),
    ):
        assert recognise(value, (), (64, 96), nothing) is None
    assert recognise(torch.zeros(1, 8, 4, 6), (), (64, 96), nothing) == Layout(MAP, 8)
    assert recognise(torch.zeros(1, 4, 6, 8), (), (64, 96), nothing) == Layout(CHANNEL_LAST, 8)
    for prefix in (0, 1, 2, 5):
        found = recognise(torch.zeros(1, prefix + 24, 8), (), (64, 96), nothing)
        assert found == Layout(TOKENS, 8, prefix, (16, 16))
    told = recognise(torch.zeros(1, 25, 8), [(5, 5)], (64, 96), nothing)  # not 1 + 4 x 6
    assert told == Layout(TOKENS, 8, 0, (64 / 5, 96 / 5))


def test_the_last_map_of_nested_results():
    a, b, c = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    token = torch.zeros(1, 2)
    Pyramid = collections.namedtuple('Pyramid', 'low high')
    for result, expected in (
        (b, c),
        ((a, b), (a, c)),
        ([a, b], [a, c]),
        (((a, token), (b, token)), ((a, token), (c, token))),
        (((a, token), [b, token]), ((a, token), [c, token])),
        ((b, token), (c, token)),
        (([a, b],), ([a, c],)),
        (Pyramid(a, b), Pyramid(a, c)),
    ):
        assert last_map(result) is b
        assert same(replace_last_map(result, c), expected)


def same(one, other) -> bool:
    if isinstance(one, Tensor):
        return one is other
    return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))


# ------------------------------------------------------------------ what cannot be cut
class Odd(nn.Module):
    """Modules that run in every way but the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.box = nn.ModuleList([nn.Conv2d(4, 4, 1)])
        self.never = nn.Conv2d(4, 4, 1)
        self.keyword = nn.Conv2d(4, 4, 1)
        self.vector = nn.Linear(4, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor]:
        x = self.twice(self.twice(self.stem(picture)))
        x = self.keyword(input=self.box[0](x))
        x = x + self.vector(x.mean((2, 3)))[..., None, None]
        return (self.head(x),)


@pytest.mark.parametrize(
    'name, found',
    [
        ('layer9', 'no such module'),
        ('', 'no such module'),
        ('never', 'does not run by itself'),
        ('box', 'does not run by itself'),
        ('keyword', 'given no positional argument'),
        ('twice', 'runs 2 times'),
        ('vector', 'no feature map'),
    ],
)
def test_a_wrong_name_lists_the_possible_ones(name, found):
    with pytest.raises(UserError, match=found) as error:
        probe(Odd(), ['stem', name], PICTURE)
    assert f"modules of Odd that run once on a feature map, found '{name}'" in str(error.value)
    assert "Possible: stem, box.0, head and 'out'." in str(error.value)


def test_many_names_are_listed_from_the_outside():
    with pytest.raises(UserError, match=r'conv1, .*layer1, .*layer4.*inside these\)'):
        probe(build(dict(RESNET, type='ResNet', depth=50)), ['layer5'], PICTURE)


@pytest.mark.parametrize(
    'names, right',
    [
        (['layer2', 'layer1'], ['layer1', 'layer2']),
        ([OUT, 'layer4'], ['layer4', OUT]),
        (['layer3.1', 'layer3'], ['layer3', 'layer3.1']),
        (['layer1', 'layer1'], ['layer1']),
        ([OUT, OUT], [OUT]),
    ],
)
def test_names_out_of_order(names, right):
    with pytest.raises(UserError, match='each place once, in the order') as error:
        probe(build(RESNET), names, PICTURE)
    assert f'found {names}. Write {right}.' in str(error.value)


def test_a_result_without_a_map():
    class Words(Odd):
        def forward(self, picture):
            return super().forward(picture)[0].mean((2, 3))

    probe(Words(), ['stem'], PICTURE)
    with pytest.raises(UserError, match=f"found '{OUT}': an input that is no feature map"):
        probe(Words(), ['stem', OUT], PICTURE)


def test_a_size_or_depth_that_the_backbone_refuses():
    with pytest.raises(UserError, match=r'probe_size: Odd was tried .*\(1, 4, 64, 96\).*failed'):
        probe(Odd(), ['stem'], (4, 64, 96))
    four = build(dict(RESNET, in_channels=4))
    assert probe(four, ['layer1'], (4, 64, 96))['layer1'] == Layout(MAP, 8)


# ------------------------------------------------------------------ the probe leaves no trace
def test_the_probe_leaves_the_backbone_as_it_was():
    backbone = build(RESNET)
    backbone.train()
    backbone.layer2.eval()
    modes = [module.training for module in backbone.modules()]
    before = copy.deepcopy(backbone.state_dict())
    drawn = torch.get_rng_state()
    probe(backbone, ['layer1', OUT], PICTURE)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, before[n]) for n, value in backbone.state_dict().items())
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    assert torch.equal(torch.get_rng_state(), drawn)
    with pytest.raises(UserError):
        probe(backbone, ['layer1'], (1, 64, 96))
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    assert [module.training for module in backbone.modules()] == modes


def test_evaluating_restores_after_an_exception():
    backbone = build(RESNET)
    backbone.train()
    with pytest.raises(ZeroDivisionError), evaluating(backbone):
        assert not any(module.training for module in backbone.modules())
        _ = 1 / 0
    assert backbone.training and backbone.layer1.training


def test_on_the_meta_device():
    config, places = BACKBONES['resnet']
    with torch.device('meta'):
        layouts = probe(build(config), list(places), PICTURE)
    assert [layout.channels for layout in layouts.values()] == [p[1] for p in places.values()]
