"""DaViT-d3 and -d5: the public code's numbers and names, and a plain twin for all other sizes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foundation import rule
from mmengine import Config
from torch.utils._python_dispatch import TorchDispatchMode

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, DaViT
from mmprompt.foundation.seem.reference_keys import IGNORED, to_ours, to_reference
from mmprompt.registry import MODELS

MODELS_DIR = rule.DATA.parents[2] / 'configs/_base_/models'
TOLERANCE = 1e-5  # relative, and of the standard deviation
TOY = dict(embed_dims=(32, 64, 64, 96), depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 3))


def shapes_of(variant: str) -> dict[str, tuple[int, ...]]:
    text = (rule.DATA / f'keys_{variant}.json').read_text()
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def configured(name: str) -> dict:
    return Config.fromfile(MODELS_DIR / f'{name}.py').seem


def toy(**sizes) -> DaViT:
    """In double precision on the rule's parameters."""
    with torch.device('meta'):
        net = DaViT(**{**TOY, **sizes})
    return rule.fill(net, lambda key: to_reference('backbone.' + key))


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


# ---------------------------------------------------------------- the public code's numbers
def test_d3_gives_the_public_numbers():
    config = configured('davit-d3').backbone
    with torch.device('meta'):
        net = MODELS.build(config)
    rule.fill(net, lambda key: to_reference('backbone.' + key))
    image = rule.double(rule.image('image', 2, 128, 192))
    maps = net(image)
    # Largest difference of the public code between its own two precisions, map by map.
    gaps = (4.296e-6, 7.213e-6, 1.401e-4, 1.465e-5)
    single = net.float()(image.float())
    with np.load(rule.DATA / 'backbone_davitd3.npz') as stored:
        assert len(maps) == len(stored.files) == 4
        for name, double, found, gap in zip(stored.files, maps, single, gaps):
            expected = torch.from_numpy(stored[name]).double()
            double = double[:, :: int(name.split('_c')[1])]
            atol = TOLERANCE * expected.std().item()
            torch.testing.assert_close(double, expected, rtol=TOLERANCE, atol=atol)
            found = found[:, :: int(name.split('_c')[1])]
            assert (found - double).abs().max() <= 5 * gap


def test_d3_end_to_end_from_a_public_state_dict():
    """Of this run of the public code only moments were kept."""
    state = {
        key: rule.double(rule.parameter(key, shape))
        for key, shape in shapes_of('davitd3').items()
        if '.lang_encoder.' not in key or key.endswith('logit_scale')
    }
    model = SEEM.from_checkpoint(state)
    out = model(rule.double(rule.image('image', 2, 128, 192)), rule.double(rule.text(8)))
    found = [
        f(v).item() for v in (out.pred_logits, out.pred_masks) for f in (torch.mean, torch.std)
    ]
    expected = [0.34642752241443314, 3.8728092241750995, -0.6175709623094194, 6.799139712397037]
    assert found == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- names, shapes, sizes
@pytest.mark.parametrize('size, million', [('d3', 86.93), ('d5', 360.63)])
def test_public_keys_and_shapes(size, million):
    public = shapes_of(f'davit{size}')
    expected = {k: shape for k, shape in public.items() if not k.startswith(IGNORED)}
    assert public.keys() - expected.keys() == {'dilation_kernel', 'criterion.empty_weight'}
    with torch.device('meta'):
        by_config = SEEM(**configured(f'davit-{size}'))
    on_meta = {key: torch.empty(shape, device='meta') for key, shape in public.items()}
    by_keys = SEEM.from_checkpoint(on_meta)
    for model in (by_config, by_keys):
        state = model.state_dict()
        assert {to_reference(key): tuple(v.shape) for key, v in state.items()} == expected
        assert {to_ours(key) for key in expected} == state.keys()
    backbone = by_keys.backbone.state_dict().values()
    assert len(backbone) == 400
    assert round(sum(v.numel() for v in backbone) / 1e6, 2) == million
    assert str(by_config) == str(by_keys)
    features = by_keys.encode_image(torch.empty(1, 3, 70, 101, device='meta'))
    assert features.mask_features.shape == (1, 512, 24, 32)


@pytest.mark.parametrize('size', ['d3', 'd5'])
def test_ssprompt_is_built_over_it(size):
    config = Config.fromfile(MODELS_DIR / f'ssprompt_davit-{size}.py').model
    assert config.base.endswith(f'/seem_davit{size}.pt')
    with torch.device('meta'):
        model = MODELS.build(config | dict(classes=['road', 'car']))
    assert isinstance(model.backbone, DaViT)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == (100 + 2) * 513


def other_sizes(**backbone) -> dict:
    """A SEEM of sizes that nobody published."""
    dims = (32, 96, 64, 128)
    return dict(
        backbone=dict(
            type='DaViT', embed_dims=dims, depths=(2, 1, 3, 1), num_heads=(1, 3, 2, 4), **backbone
        ),
        pixel_decoder=dict(
            type='TransformerFPN', in_channels=dims, dim=64, mask_dim=64, num_layers=1, ffn_dim=32
        ),
        decoder=dict(
            type='SEEMDecoder', dim=64, num_layers=3, ffn_dim=32, mask_dim=64, proj_dim=64
        ),
    )


def public_dict(config: dict) -> dict[str, torch.Tensor]:
    with torch.device('meta'):
        shapes = {to_reference(k): v.shape for k, v in SEEM(**config).state_dict().items()}
    return {key: rule.double(rule.parameter(key, shape)) for key, shape in shapes.items()}


@pytest.mark.parametrize('down_kernel', [2, 3])
def test_sizes_are_read_from_the_shapes(down_kernel):
    config = other_sizes(down_kernel=down_kernel, mlp_ratio=1.5)
    state = public_dict(config)
    found = SEEM.from_checkpoint(state)
    expected = SEEM(**config).double().eval()
    expected.load_state_dict({to_ours(key): value for key, value in state.items()})
    image, rows = rule.double(rule.image('image', 1, 64, 96)), rule.double(rule.text(3, 64))
    torch.testing.assert_close(found(image, rows).pred_masks, expected(image, rows).pred_masks)


def test_what_no_davit_here_has_is_refused():
    state = public_dict(other_sizes())
    weight = state['backbone.convs.2.proj.weight']
    with pytest.raises(UserError, match=r'one size.*found kernels \[2, 3\]'):
        SEEM.from_checkpoint({**state, 'backbone.convs.2.proj.weight': F.pad(weight, (0, 1, 0, 1))})
    with pytest.raises(UserError, match='backbone.blocks.0.0.surprise'):
        SEEM.from_checkpoint({**state, 'backbone.blocks.0.0.surprise.weight': weight})
    renamed = {key.replace('channel_block', 'other_block'): value for key, value in state.items()}
    with pytest.raises(UserError, match='FocalNet.*DaViT.*unknown backbone'):
        SEEM.from_checkpoint(renamed)


# ---------------------------------------------------------------- a twin, written plainly
class Twin:
    """One image through the equations, maps as (h, w, C), window by window and head by head."""

    def __init__(self, net: DaViT, down_kernel: int) -> None:
        self.params = {
            to_reference('backbone.' + key).removeprefix('backbone.'): value
            for key, value in net.state_dict().items()
        }
        self.down_kernel = down_kernel

    def dense(self, x, name):
        return x @ self.params[name + '.weight'].T + self.params[name + '.bias']

    def norm(self, x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.params[name + '.weight'] + self.params[name + '.bias']

    def conv(self, x, name, **options):
        weights = self.params[name + '.weight'], self.params[name + '.bias']
        return F.conv2d(x.permute(2, 0, 1), *weights, **options).permute(1, 2, 0)

    def windows(self, x, name, heads):
        out = torch.zeros_like(x)
        height, width, dim = x.shape
        d = dim // heads
        for top in range(0, height, 7):
            for left in range(0, width, 7):
                rows, cols = slice(top, min(top + 7, height)), slice(left, min(left + 7, width))
                part = x[rows, cols]
                full = F.pad(part, (0, 0, 0, 7 - part.shape[1], 0, 7 - part.shape[0]))
                qkv = self.dense(full.reshape(49, dim), name + '.qkv').split(dim, dim=1)
                heads_of = zip(*(part.split(d, dim=1) for part in qkv))
                mixed = [torch.softmax(q @ k.T / d**0.5, 1) @ v for q, k, v in heads_of]
                mixed = self.dense(torch.cat(mixed, 1), name + '.proj').reshape(7, 7, dim)
                out[rows, cols] = mixed[: part.shape[0], : part.shape[1]]
        return out

    def channels(self, x, name, groups):
        dim, tokens = x.shape[2], x.shape[0] * x.shape[1]
        qkv = self.dense(x.reshape(tokens, dim), name + '.qkv').split(dim, dim=1)
        groups_of = zip(*(part.split(dim // groups, dim=1) for part in qkv))
        mixed = [v @ torch.softmax(q.T @ k / tokens**0.5, 1).T for q, k, v in groups_of]
        return self.dense(torch.cat(mixed, 1), name + '.proj').reshape(x.shape)

    def block(self, x, name, mix, attention, heads):
        dim = x.shape[2]
        x = x + self.conv(x, name + 'conv1.fn.dw', groups=dim, padding=1)
        normed = self.norm(x, f'{name}{attention}.norm')
        x = x + mix(normed, f'{name}{attention}.fn', heads)
        x = x + self.conv(x, name + 'conv2.fn.dw', groups=dim, padding=1)
        hidden = self.dense(self.norm(x, name + 'ffn.norm'), name + 'ffn.fn.net.fc1')
        return x + self.dense(F.gelu(hidden), name + 'ffn.fn.net.fc2')

    def down(self, x, stage):
        if stage == 0:
            return self.norm(self.conv(x, 'convs.0.proj', stride=4, padding=3), 'convs.0.norm')
        x = self.norm(x, f'convs.{stage}.norm')
        if self.down_kernel == 2:  # an odd last row or column meets zeros
            x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
        return self.conv(x, f'convs.{stage}.proj', stride=2, padding=(self.down_kernel - 1) // 2)

    def maps(self, image):
        x, outs = image.permute(1, 2, 0), []
        for i, (depth, heads) in enumerate(zip(TOY['depths'], TOY['num_heads'])):
            x = self.down(x, i)
            for j in range(depth):
                name = f'blocks.{i}.{j}.'
                x = self.block(x, name + 'spatial_block.', self.windows, 'window_attn', heads)
                x = self.block(x, name + 'channel_block.', self.channels, 'channel_attn', heads)
            outs.append(x.permute(2, 0, 1))
        return outs


@pytest.mark.parametrize('down_kernel', [2, 3])
@pytest.mark.parametrize('size', [(64, 96), (37, 101), (1, 1)])
def test_any_size_follows_the_equations(down_kernel, size):
    net = toy(down_kernel=down_kernel)
    twin = Twin(net, down_kernel)
    images = rule.double(rule.image('image', 2, *size))
    maps = net(images)
    assert net.out_channels == [m.shape[1] for m in maps]
    for b, image in enumerate(images):
        for found, expected in zip(maps, twin.maps(image), strict=True):
            torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- memory and training
class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operator returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_nothing_grows_with_the_square_of_the_tokens(monkeypatch):
    seen = []

    def attend(q, k, v, **options):
        seen.append((k.shape[-2], k.shape[-1]))
        return original(q, k, v, **options)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention', attend)
    net = toy()
    with Largest() as largest:
        net(torch.zeros(1, 3, 256, 256, dtype=torch.float64))
    assert seen == [(49, 32)] * sum(TOY['depths'])
    tokens = 70 * 70  # 64 x 64, padded to windows
    assert 3 * 32 * 64 * 64 < largest.elements <= 4 * 32 * tokens


def test_drop_path_rises_linearly():
    net = DaViT(**TOY, drop_path_rate=0.4)
    rates = [m.drop_prob for m in net.modules() if hasattr(m, 'drop_prob')]
    # Two blocks of two branches in each of five units; the first unit never drops.
    assert rates == pytest.approx([rate for rate in (0.1, 0.2, 0.3, 0.4) for _ in range(4)])
    image = torch.from_numpy(rule.image('image', 1, 32, 32))
    torch.manual_seed(0)
    assert not torch.equal(net.train()(image)[3], net(image)[3])
    assert torch.equal(net.eval()(image)[3], net(image)[3])


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    'sizes, message',
    [
        (dict(depths=(1, 1, 9)), 'one length, found 4, 3 and 4'),
        (dict(num_heads=(1, 2, 3, 3)), r'embed_dims\[2\] to be a multiple of .*, found 64 and 3'),
        (dict(down_kernel=4), r'down_kernel must be one of \(2, 3\), found 4'),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        DaViT(**{**TOY, **sizes})


def test_an_old_timm_is_named(monkeypatch):
    monkeypatch.setattr('timm.__version__', '0.9.16')
    with pytest.raises(UserError, match='timm 1.0.21 or later, found 0.9.16.*pip install'):
        DaViT(**TOY)


def test_only_a_davit_needs_timm():
    code = """
import sys
sys.modules['timm'] = None
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import DaViT, FocalNet
FocalNet(8, (1,), (1,), (3,))
try:
    DaViT()
except UserError as error:
    print(error)
"""
    root = rule.DATA.parents[2]
    ran = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert 'pip install timm' in ran.stdout
