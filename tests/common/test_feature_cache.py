import logging
from pathlib import Path

import pytest
import torch
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from torch import nn

from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import FeatureCache, views_of


class Encoder:
    """A convolution whose single-image and batched results may differ in the last bit."""

    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 32, 3)
        self.calls = []

    def __call__(self, images):
        self.calls.append(len(images))
        maps = self.net(images)
        return {'deep': maps, 'pooled': maps.mean((2, 3))}


@pytest.fixture
def images():
    return torch.randn(4, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_equal_whatever_the_batch_and_the_source(tmp_path, images, dtype):
    encode = Encoder()
    cache = FeatureCache(tmp_path, 'f' * 64, dtype)
    first = cache.fetch(images, encode)
    assert encode.calls == [1] * 4 and not first['deep'].requires_grad
    single = [encode(images[i : i + 1])['deep'][0] for i in range(4)]
    tolerance = 0 if dtype == 'fp32' else 2**-8
    torch.testing.assert_close(first['deep'], torch.stack(single), rtol=tolerance, atol=0)

    encode.calls.clear()
    order = torch.tensor([2, 0])
    again = cache.fetch(images[order], encode)
    fresh = FeatureCache(tmp_path, 'f' * 64, dtype)
    from_disk = fresh.fetch(images[order], encode)
    assert not encode.calls
    assert equal(again, {k: v[order] for k, v in first.items()}) and equal(again, from_disk)


def test_another_view_base_or_dtype_is_another_entry(tmp_path, images):
    encode = Encoder()
    FeatureCache(tmp_path, 'f' * 64).fetch(images[:1], encode)
    FeatureCache(tmp_path, 'f' * 64).fetch(images[:1].flip(-1), encode)
    FeatureCache(tmp_path, 'g' * 64).fetch(images[:1], encode)
    FeatureCache(tmp_path, 'f' * 64, 'bf16').fetch(images[:1], encode)
    assert len(encode.calls) == 4
    with pytest.raises(UserError, match="fp32 or bf16, found 'fp16'"):
        FeatureCache(tmp_path, 'f', 'fp16')


@pytest.mark.parametrize('damage', ['cut', 'flipped bit', 'foreign', 'empty'])
def test_damaged_entries_are_made_again(tmp_path, images, damage):
    encode = Encoder()
    first = FeatureCache(tmp_path, 'f' * 64).fetch(images[:2], encode)
    one, two = sorted(tmp_path.rglob('*.safetensors'))
    data = one.read_bytes()
    broken = {
        'cut': data[:-7],
        'flipped bit': data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        'foreign': two.read_bytes(),
        'empty': b'',
    }[damage]
    one.write_bytes(broken)
    encode.calls.clear()
    assert equal(FeatureCache(tmp_path, 'f' * 64).fetch(images[:2], encode), first)
    assert encode.calls == [1] and one.read_bytes() == data


def test_limits(tmp_path, images):
    encode = Encoder()
    entry = (32 * 10 * 14 + 32) * 4
    gib = 1024**3
    small = FeatureCache(tmp_path, 'f', limit_gb=2.5 * entry / gib, memory_gb=1.5 * entry / gib)
    want = small.fetch(images, encode)
    assert len(list(tmp_path.rglob('*.safetensors'))) == 2 and len(small) == 1
    assert equal(small.fetch(images, encode), want)
    assert len(encode.calls) == 4 + 2, 'two from disk, two made again'
    memory = FeatureCache(None, 'f')
    memory.fetch(images, encode)
    encode.calls.clear()
    assert equal(memory.fetch(images, encode), want) and not encode.calls


@pytest.mark.parametrize('root', [None, 'files'])
def test_layout_and_precision_come_back_as_encoded(tmp_path, images, root):
    """Values alone would do, were it not for kernels that add up in another order by layout."""

    def encode(images):
        maps = Encoder()(images)['deep'].to(memory_format=torch.channels_last)
        low = maps.bfloat16()
        return dict(deep=maps, low=low, plain=maps.contiguous(), double=maps.double())

    root = root and tmp_path
    with torch.no_grad():
        wanted = [encode(image[None]) for image in images]
    wanted = {k: torch.cat([one[k] for one in wanted]) for k in wanted[0]}
    cache = FeatureCache(root, 'f')
    for found in (cache.fetch(images, encode), cache.fetch(images, None)):
        for name, tensor in wanted.items():
            kept = tensor.float().to(tensor.dtype)
            assert torch.equal(found[name], kept) and found[name].dtype == tensor.dtype
            assert found[name].stride() == tensor.stride()


def test_half_precision_is_another_entry(images):
    """Under autocast other values are computed; they must not stand in for those of float32."""
    cache, net = FeatureCache(None, 'f'), nn.Conv2d(3, 8, 3)
    encode = lambda x: dict(maps=net(x))  # noqa: E731
    whole = cache.fetch(images[:1], encode)['maps']
    with torch.autocast('cpu', torch.bfloat16):
        half = cache.fetch(images[:1], encode)['maps']
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(cache.fetch(images[:1], None)['maps'], whole)


def test_files_are_mapped_not_read(tmp_path):
    """What a process holds of an entry lies in its file, not in memory of its own."""
    table = Path('/proc/self/maps')
    if not table.exists():
        pytest.skip('needs /proc')

    def file_at(address):
        for line in table.read_text().splitlines():
            place, *_, name = line.split(maxsplit=5)
            start, end = (int(each, 16) for each in place.split('-'))
            if start <= address < end:
                return Path(name)

    images = torch.randn(6, 3, 4, 4)
    large = lambda x: dict(maps=x.mean().expand(1, 1 << 16).contiguous())  # noqa: E731
    for image in images:
        FeatureCache(tmp_path, 'f').fetch(image[None], large)
    cache = FeatureCache(tmp_path, 'f')
    for image in images:
        assert (cache.fetch(image[None], None)['maps'] == image.mean()).all()
    held = [tensor for entry in cache._mapped.values() for tensor in entry.tensors.values()]
    assert len(cache) == 0 and len(held) == len(images)
    assert {file_at(each.data_ptr()) for each in held} == set(tmp_path.rglob('*.safetensors'))


BOTH = ['horizontal', 'vertical']


class Data(list):
    """Six images and a pipeline."""

    def __init__(self, *steps):
        super().__init__(range(6))
        self.pipeline = Compose(steps)


@pytest.mark.parametrize(
    'steps, views',
    [
        ([], 6),
        ([dict(type='mmseg.Resize', scale=(64, 32))], 6),
        ([dict(type='mmseg.RandomFlip', prob=0.5)], 12),
        ([dict(type='mmseg.RandomFlip', prob=1.0)], 6),
        ([dict(type='mmseg.RandomFlip', prob=0.0)], 6),
        ([dict(type='mmseg.RandomFlip', prob=0.5, direction=BOTH)], 18),
        (
            [dict(type='mmseg.RandomFlip', prob=[0.5, 0.5], direction=['horizontal', 'vertical'])],
            12,
        ),
        ([dict(type='mmseg.RandomCrop', crop_size=(8, 8))], None),
        ([dict(type='mmseg.PhotoMetricDistortion')], None),
    ],
)
def test_views_of_a_dataset(steps, views):
    assert views_of(Data(*steps)) == views


def test_views_of_what_has_no_pipeline():
    assert views_of(list(range(6))) is None


def test_the_estimate_is_printed_once(tmp_path, images):
    logger = MMLogger.get_instance('feature-cache-test')
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    cache = FeatureCache(tmp_path, 'f')
    cache.expected_views = 1000
    cache.fetch(images, Encoder())
    assert len(lines) == 1 and '0.02 MiB per image view' in lines[0] and '1000 views' in lines[0]
    assert 'no place' not in lines[0]
    entry = (32 * 10 * 14 + 32) * 4
    small = FeatureCache(None, 'f', memory_gb=2.5 * entry / 1024**3)
    small.expected_views = 5
    small.fetch(images, Encoder())
    assert 'memory takes 2 views' in lines[1] and 'Up to 3 views find no place' in lines[1]
