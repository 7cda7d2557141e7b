"""Tiles against one call of `F.interpolate` after the other, at every awkward size."""

import pytest
import torch
import torch.nn.functional as F
from largest import Largest

from mmprompt.common import mask_merge, upsampling

# Image before padding, and the answer.
SIZES = [
    ((64, 96), (64, 96)),
    ((64, 96), (131, 50)),
    ((33, 65), (200, 333)),
    ((31, 33), (31, 33)),
    ((1, 70), (1, 70)),
    ((70, 1), (123, 2)),
    ((1, 1), (7, 1)),
    ((50, 90), (9, 11)),
]
TURNS = {'horizontal': [3], 'vertical': [2], 'diagonal': [2, 3]}


def random_masks(size, count=5, dtype=torch.float64):
    cells = [8 * -(-side // 32) for side in size]
    return torch.randn(count, *cells, generator=torch.Generator().manual_seed(0), dtype=dtype) * 3


def at_once(masks, size, output_size, flip=None):
    """The published steps, each on the whole."""
    x = F.interpolate(masks[None], scale_factor=4, mode='bilinear', align_corners=False)
    x = x[..., : size[0], : size[1]]
    x = x.flip(TURNS[flip]) if flip else x
    # Two equal copies: torch misreads one channels-last picture of a single column.
    x = x.contiguous().expand(2, *x.shape[1:])
    kwargs = dict(mode='bicubic', align_corners=False, antialias=True)
    return F.interpolate(x, size=output_size, **kwargs)[0]


@pytest.fixture(params=[60, 1000, 1 << 21])
def budget(request, monkeypatch):
    monkeypatch.setattr(upsampling, 'TILE_VALUES', request.param)
    return request.param


@pytest.mark.parametrize('size, output_size', SIZES)
def test_tiles_are_the_whole(size, output_size, budget):
    masks = random_masks(size)
    maps = upsampling.upsample_masks(masks, size, output_size)
    assert maps.shape == (5, *output_size)
    seen = torch.zeros(output_size)
    for rows, columns, values in maps.tiles():
        seen[rows, columns] += 1
        assert values.numel() <= budget
    assert (seen == 1).all()
    expected = at_once(masks, size, output_size)
    torch.testing.assert_close(maps.dense(), expected, rtol=1e-12, atol=1e-12)
    chosen = torch.tensor([4, 0, 4])
    torch.testing.assert_close(maps[chosen].dense(), expected[chosen], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('flip', TURNS)
def test_mirrored_images_are_turned_back(flip):
    masks = random_masks((50, 70))
    maps = upsampling.upsample_masks(masks, (50, 70), (80, 60), flip)
    expected = at_once(masks, (50, 70), (80, 60), flip)
    torch.testing.assert_close(maps.dense(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('align_corners', [False, True])
def test_scores_are_resized_as_mmsegmentation_does(align_corners, budget):
    scores = torch.rand(3, 20, 31, dtype=torch.float64)
    maps = upsampling.resize_scores(scores, (33, 50), 'horizontal', align_corners)
    expected = F.interpolate(
        scores[None].flip(3), size=(33, 50), mode='bilinear', align_corners=align_corners
    )[0]
    torch.testing.assert_close(maps.dense(), expected, rtol=1e-12, atol=1e-12)


def test_half_precision_is_widened_even_under_autocast():
    masks = random_masks((64, 64), dtype=torch.float32).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = upsampling.upsample_masks(masks, (64, 64), (99, 99)).dense()
    expected = at_once(masks.float(), (64, 64), (99, 99))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instances'])
@pytest.mark.parametrize('classes', [4, 40])
def test_no_tensor_is_larger_than_a_tile_or_the_answer(task, classes, monkeypatch):
    queries, size, output = 20, (64, 96), (120, 100)
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(queries, classes + 1, generator=rng) * 4
    masks = random_masks(size, queries, torch.float32)
    options = dict(
        semantic=(), panoptic=((0, 1), 0.1, 0.1), instances=(6,)
    )[task]  # fmt: skip
    answer = output[0] * output[1] * (6 if task == 'instances' else 1)
    budget = 8000  # the whole: 20 x 12,000 mask values
    monkeypatch.setattr(upsampling, 'TILE_VALUES', budget)
    watch = Largest()
    with watch:
        found = getattr(mask_merge, task)(
            logits, upsampling.upsample_masks(masks, size, output), *options
        )
    assert found is not None and watch.values <= max(budget, answer, masks.numel())
