"""RoIAlign, MaskRoI and the encoder, against torchvision and against one box at a time."""

import pytest
import torch
import torchvision
from mmengine.structures import InstanceData
from toy_samcp import CHANNELS, SIZE, STRIDES, toy_features, toy_levels, toy_sample

from mmprompt.methods.samcp import features as features_module
from mmprompt.methods.samcp.features import ImageFeatures, RoIExtractor
from mmprompt.methods.samcp.patch_encoder import PatchBatch, SAMCPPatchEncoder
from mmprompt.methods.samcp.roi_align import SMALL, roi_align, roi_align_by_products

DIM = 16


def encoder(**options):
    torch.manual_seed(0)
    config = dict(in_channels=CHANNELS, dim=DIM, hidden=24, num_heads=2, ffn_dim=24, num_layers=2)
    return SAMCPPatchEncoder(**{**config, **options}).double()


def boxes_of_all_kinds(count=60, width=64.0, height=48.0):
    """Of all sizes, beyond the image on any side, thin, and of no size at all."""
    torch.manual_seed(1)
    scale = torch.tensor([width, height], dtype=torch.float64)
    first = torch.rand(count, 2, dtype=torch.float64) * scale * 1.4 - 0.2 * scale
    boxes = torch.cat([first, first + torch.rand_like(first) * scale], dim=1)
    boxes[0, 2:] = boxes[0, :2]
    boxes[1] = 0
    boxes[2] = torch.tensor([0, 0, width, height])
    boxes[3, 3] = boxes[3, 1] + 0.2
    return boxes


@pytest.mark.parametrize('stride', STRIDES)
def test_products_are_roi_align(stride):
    level = torch.randn(3, 5, 64 // stride, 96 // stride, dtype=torch.float64)
    boxes, row = boxes_of_all_kinds(), torch.arange(60) % 2 * 2  # the second map is read by none
    found, gradients = [], []
    for read in (
        lambda x: roi_align_by_products(x, row, boxes, 7, 1 / stride),
        lambda x: torchvision.ops.roi_align(
            x, torch.cat([row[:, None].double(), boxes], 1), 7, 1 / stride, aligned=True
        ),
    ):
        x = level.clone().requires_grad_()
        out = read(x)
        (out * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
        found.append(out)
        gradients.append(x.grad)
    assert torch.allclose(*found, rtol=0, atol=1e-12)
    assert torch.allclose(*gradients, rtol=0, atol=1e-11)


def test_large_maps_go_to_the_kernel(monkeypatch):
    called = []
    real = torchvision.ops.roi_align
    monkeypatch.setattr(
        torchvision.ops, 'roi_align', lambda *a, **k: called.append(1) or real(*a, **k)
    )
    boxes, row = torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(1, dtype=torch.long)
    side = int(SMALL**0.5)
    for size, expected in ((side, 0), (side + 1, 1)):
        roi_align(torch.zeros(1, 2, size, size), row, boxes, 7, 1.0)
        assert len(called) == expected


def test_level_of_a_box():
    """MMDetection's SingleRoIExtractor: below 112 the finest, from 448 on the coarsest."""
    extract = RoIExtractor()
    sides = torch.tensor([0.0, 1, 55, 56, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(11), torch.zeros(11), sides, sides], dim=1)
    assert extract.level(boxes).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    thin = torch.tensor([[0.0, 0, 896, 14]])  # by the root of its area, 112
    assert extract.level(thin).tolist() == [1]


def test_boxes_of_unequal_images_are_read_as_one_by_one():
    canvases, sizes = [(64, 64), (32, 96), (64, 64)], [(48, 64), (30, 90), (61, 50)]
    levels = [toy_levels(canvas, 1, i, torch.float64) for i, canvas in enumerate(canvases)]
    pair = [torch.cat(maps) for maps in zip(levels[0], levels[2])]
    features = ImageFeatures(
        [(pair, [0, 2], canvases[0]), (levels[1], [1], canvases[1])],
        torch.tensor(sizes, dtype=torch.float64),
    )
    extract = RoIExtractor(finest_scale=5)  # so that all levels are read
    image = torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    boxes = boxes_of_all_kinds(40, 1.0, 1.0)
    found = extract(features, image, boxes)
    read = set()
    for index, (place, box) in enumerate(zip(image.tolist(), boxes)):
        height, width = sizes[place]
        pixels = box * torch.tensor([width, height, width, height])
        level = int(extract.level(pixels[None]))
        read.add(level)
        roi = torch.cat([pixels.new_zeros(1), pixels])[None]
        expected = torchvision.ops.roi_align(
            levels[place][level], roi, 7, 1 / STRIDES[level], aligned=True
        )
        assert torch.allclose(found[index], expected[0], rtol=0, atol=1e-12)
    assert read == {0, 1, 2, 3}


def test_every_map_has_a_gradient_though_none_is_read():
    levels = [level.requires_grad_() for level in toy_levels()]
    features = ImageFeatures([(levels, [0], (64, 64))], torch.tensor([SIZE]))
    none = torch.zeros(0, dtype=torch.long)
    found = RoIExtractor()(features, none, torch.zeros(0, 4))
    assert found.shape == (0, CHANNELS, 7, 7)
    found.sum().backward()
    assert all(not level.grad.any() for level in levels)


@pytest.mark.parametrize('value', [float('inf'), float('nan')])
def test_a_map_that_is_not_read_spoils_nothing(value):
    levels = [level.requires_grad_() for level in toy_levels()]
    with torch.no_grad():
        levels[-1][..., 0, 0] = value
    features = ImageFeatures([(levels, [0], (64, 64))], torch.tensor([SIZE], dtype=torch.float32))
    boxes = torch.tensor([[0.5, 0.5, 0.6, 0.6]])  # small: the finest level
    found = RoIExtractor()(features, torch.tensor([0]), boxes)
    found.sum().backward()
    assert found.isfinite().all() and found.any()
    assert all(level.grad.isfinite().all() for level in levels)
    assert levels[0].grad.any() and not levels[-1].grad.any()


def test_mask_roi_hides_what_is_outside():
    """What lies under cells outside the patch cannot be seen; without MaskRoI it can."""
    for mask_roi in (True, False):
        model = encoder(mask_roi=mask_roi, num_layers=0)
        boxes = torch.tensor([[[0.0, 0, 1, 1]]], dtype=torch.float64)
        regions = torch.zeros(1, 1, 7, 7, dtype=torch.bool)
        regions[..., :3] = True
        patches = PatchBatch(boxes, regions, torch.ones(1, 1, dtype=torch.bool))
        first, second = (toy_features((64, 64), dtype=torch.float64) for _ in range(2))
        for level in second.groups[0]:
            level[..., level.shape[-1] // 2 + 1 :] += 5
        found = [model(features, patches).content for features in (first, second)]
        assert torch.allclose(*found) is mask_roi


def test_encoder_is_detr(monkeypatch):
    """One layer by hand with torch's own attention; padding is hidden."""
    model = encoder(num_layers=1)
    features, sample = toy_features(dtype=torch.float64), toy_sample(5)
    patches = PatchBatch.join([sample.patches], features.sizes)
    patches.valid[0, 3:] = False
    plain = encoder(num_layers=0)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if 'layers' not in k})
    start = plain(features, patches)
    layer = model.layers[0]
    attention = torch.nn.MultiheadAttention(DIM, 2, batch_first=True).double()
    attention.load_state_dict(layer.self_attention.branch.state_dict())
    x, placed = start.content, start.content + start.position
    added, _ = attention(placed, placed, x, key_padding_mask=~patches.valid)
    x = layer.self_attention.norm(x + added)
    x = layer.feed_forward.norm(x + layer.feed_forward.branch(x))
    found = model(features, patches)
    assert torch.allclose(found.content[0, :3], x[0, :3], rtol=0, atol=1e-12)
    assert torch.equal(found.position, start.position)


def test_features_of_boxes_are_those_of_whole_patches(monkeypatch):
    """The same MLP, no mask; equal boxes are read once."""
    model = encoder(num_layers=0)
    features = toy_features(dtype=torch.float64)
    boxes = torch.tensor([[[0, 0, 1, 1], [0.1, 0.2, 0.5, 0.7], [0, 0, 1, 1], [0.3, 0.3, 0.4, 0.4]]])
    boxes, valid = boxes.double(), torch.tensor([[True, True, True, False]])
    whole = PatchBatch(boxes, torch.ones(1, 4, 7, 7, dtype=torch.bool), valid)
    read = []
    align = features_module.roi_align
    monkeypatch.setattr(
        features_module, 'roi_align', lambda *a: read.append(len(a[1])) or align(*a)
    )
    expected = model(features, whole).content
    assert sum(read) == 3
    found = model.of_boxes(features, boxes, valid)
    assert sum(read) == 5
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert not found[0, 3].any()


def test_patches_are_batched_in_the_frame_of_each_image():
    sizes = torch.tensor([[10.0, 20.0], [40.0, 50.0]])
    one = InstanceData(bboxes=torch.tensor([[2.0, 1, 10, 5]]), regions=torch.ones(1, 7, 7).bool())
    none = InstanceData(bboxes=torch.zeros(0, 4), regions=torch.zeros(0, 7, 7).bool())
    batch = PatchBatch.join([one, none], sizes)
    assert torch.allclose(batch.boxes[0], torch.tensor([[0.1, 0.1, 0.5, 0.5]]))
    assert batch.valid.tolist() == [[True], [False]]
    assert PatchBatch.join([none, none], sizes).valid.tolist() == [[False], [False]]
