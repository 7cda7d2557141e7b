import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import FeatureCache


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
