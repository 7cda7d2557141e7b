"""The head: padding never leaks, nothing is too small, and each switch does what it says."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData
from toy_samcp import (
    CHANNELS,
    CLASSES,
    DIM,
    TEXT_DIM,
    THINGS,
    stir_affinity,
    toy_features,
    toy_head,
    toy_levels,
    toy_sample,
    write_text,
)

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.head import batch_of
from mmprompt.methods.samcp.patch_encoder import PatchBatch
from mmprompt.methods.samcp.queries import SAMCPDenoising
from mmprompt.methods.samcp.structures import PADDED
from mmprompt.registry import MODELS

#: Size of an image, what it is padded to, and its patches.
IMAGES = [((48, 64), (64, 64), 7), ((30, 90), (32, 96), 3), ((61, 50), (64, 64), 1)]


def build(dtype=torch.float64, **head):
    torch.manual_seed(0)
    head.setdefault('denoising', dict(num_queries=7))
    model = MODELS.build(toy_head(**head)).to(dtype)
    model.set_text(torch.randn(model.num_classes, TEXT_DIM))
    stir_affinity(model)
    return model


def joined(images, dtype=torch.float64):
    """Features and samples of a batch; images of one padded size stand in one group."""
    places = {}
    for index, (_, canvas, _) in enumerate(images):
        places.setdefault(canvas, []).append(index)
    groups = []
    for canvas, indices in places.items():
        levels = [toy_levels(canvas, 1, IMAGES.index(images[i]), dtype) for i in indices]
        groups.append(([torch.cat(maps) for maps in zip(*levels)], indices, canvas))
    sizes = torch.tensor([size for size, _, _ in images], dtype=dtype)
    samples = [toy_sample(n, size, IMAGES.index((size, c, n))) for size, c, n in images]
    for sample, (_, _, patches) in zip(samples, images):
        if patches == 3:  # one car less: other numbers of denoising queries
            sample.gt_units = sample.gt_units[:4]
    return ImageFeatures(groups, sizes), samples


@pytest.fixture
def own_noise(monkeypatch):
    """Noise that depends on the image alone, not on its place in a batch."""
    draw = SAMCPDenoising.draw

    def seeded(self, units, labels, boxes):
        torch.manual_seed(int(boxes.sum() * 1e4))
        return draw(self, units, labels, boxes)

    monkeypatch.setattr(SAMCPDenoising, 'draw', seeded)


def noised(model, features, samples):
    return model.denoising([s.gt_units for s in samples], model.columns, features.sizes)


SWITCHES = [
    {},
    dict(semantic_classes='stuff'),
    dict(decoder=dict(mask_rule='threshold', prior='every_layer')),
    dict(decoder=dict(dynamic_attention='image')),
    dict(decoder=dict(dynamic_attention=None, affinity_refinement=False)),
    dict(decoder=dict(query_enhancement=False, affinity_ffn_dim=24, affinity_rectified=True)),
    dict(patch_encoder=dict(num_layers=0, mask_roi=False)),
]


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_an_image_is_the_same_alone_and_in_a_batch(switches, own_noise):
    model = build(**switches)
    features, samples = joined(IMAGES)
    batch = model(features, batch_of(samples, features), noised(model, features, samples))
    most = max(patches for _, _, patches in IMAGES)
    assert batch.denoising.valid.sum(1).tolist() == [12, 14, 12]
    assert batch.valid.tolist() == [[i < n for i in range(most)] for _, _, n in IMAGES]
    for index, image in enumerate(IMAGES):
        features, samples = joined([image])
        alone = model(features, batch_of(samples, features), noised(model, features, samples))
        n, r = image[2], alone.denoising.units.shape[1]
        for name, cut in (
            ('semantic_logits', (slice(None),)),
            ('instance_logits', (slice(n),)),
            ('affinity_semantic', (slice(None), slice(n))),
            ('affinity_instance', (slice(n), slice(n))),
            ('boxes_instance', (slice(n),)),
        ):
            found = getattr(batch, name)[:, index][(slice(None), *cut)]
            assert torch.allclose(found, getattr(alone, name)[:, 0], rtol=0, atol=1e-10), name
        found = batch.denoising.affinity[:, index, :r, :n]
        assert torch.allclose(found, alone.denoising.affinity[:, 0], rtol=0, atol=1e-10)
        assert torch.equal(batch.denoising.units[index, :r], alone.denoising.units[0])
        assert batch.denoising.valid[index].tolist() == [
            i < r for i in range(batch.denoising.valid.shape[1])
        ]
        # What is padded can never win.
        assert (batch.affinity_semantic[:, index, :, n:] == PADDED).all()
        assert (batch.affinity_instance[:, index, n:] == PADDED).all()
        assert (batch.instance_logits[:, index, n:] == PADDED).all()
        assert (batch.denoising.logits[:, index, r:] == PADDED).all()


def padded_with_garbage(patches: PatchBatch, extra: int) -> PatchBatch:
    batch = len(patches.boxes)
    boxes = torch.rand(batch, extra, 4).to(patches.boxes) * 3 - 1
    regions = torch.rand(batch, extra, 7, 7) < 0.5
    none = patches.valid.new_zeros(batch, extra)
    return PatchBatch(
        torch.cat([patches.boxes, boxes], 1),
        torch.cat([patches.regions, regions], 1),
        torch.cat([patches.valid, none], 1),
    )


def test_padding_changes_neither_losses_nor_gradients(own_noise):
    model, losses, gradients = build(), [], []
    for extra in (0, 5):
        features, samples = joined(IMAGES)
        patches = padded_with_garbage(batch_of(samples, features), extra)
        output = model(features, patches, noised(model, features, samples))
        found = model.criterion(output, samples)
        losses.append(found)
        model.zero_grad()
        sum(found.values()).backward()
        gradients.append({k: p.grad.clone() for k, p in model.named_parameters()})
    for name, value in losses[0].items():
        assert abs(float(value - losses[1][name])) < 1e-10, name
    for name, value in gradients[0].items():
        assert torch.allclose(value, gradients[1][name], rtol=0, atol=1e-10), name


def test_the_loss_of_a_batch_of_equals_is_that_of_one(own_noise):
    model = build()
    one, many = (model.loss(*joined([IMAGES[0]] * count)) for count in (1, 3))
    for name, value in one.items():
        assert abs(float(value - many[name])) < 1e-10, name


def without_units(sample):
    sample.gt_units = InstanceData(**{k: v[:0] for k, v in sample.gt_units.items()})
    return sample


def one_object(sample):
    """All patches are parts of one car."""
    units = InstanceData(**{k: v[:1].clone() for k, v in sample.gt_units.items()})
    units.labels[:], units.is_instance[:] = THINGS[0], True
    for name in ('mask_iop', 'box_iop'):
        units[name][:] = 1
    sample.gt_units = units
    return sample


CASES = dict(
    none_in_one=lambda: [toy_sample(0), toy_sample(5)],
    none_at_all=lambda: [toy_sample(0), toy_sample(0)],
    one=lambda: [toy_sample(1)],
    no_truth=lambda: [without_units(toy_sample(4)), toy_sample(3)],
    no_truth_at_all=lambda: [without_units(toy_sample(4))],
    neither=lambda: [without_units(toy_sample(0))],
    one_object=lambda: [one_object(toy_sample(5))],
)


@pytest.mark.parametrize('mask_rule', ['min-max', 'threshold'])
@pytest.mark.parametrize('case', CASES)
def test_nothing_is_too_small(case, mask_rule):
    model, samples = build(torch.float32, decoder=dict(mask_rule=mask_rule)), CASES[case]()
    levels = [level.requires_grad_() for level in toy_levels((64, 64), len(samples))]
    sizes = torch.tensor([[48.0, 64.0]] * len(samples))
    features = ImageFeatures([(levels, list(range(len(samples))), (64, 64))], sizes)
    losses = model.loss(features, samples)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    # All of them, with a gradient of zero if need be: processes wait for each other's.
    for name, parameter in [*model.named_parameters(), *enumerate(levels)]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    output = model(features, batch_of(samples, features))
    assert output.affinity_semantic.isfinite().all() and output.boxes_instance.isfinite().all()


@pytest.mark.parametrize('things', [(), (0, 1, 2, 3)], ids=['no things', 'no stuff'])
@pytest.mark.parametrize('semantic_classes', ['all', 'stuff'])
def test_without_things_or_without_stuff(things, semantic_classes):
    model = build(torch.float32, thing_classes=things, semantic_classes=semantic_classes)
    sample = toy_sample(4)
    if not things:
        sample.gt_units = sample.gt_units[:3]  # regions of classes
    losses = model.loss(toy_features(), [sample])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    asked = len(CLASSES) if semantic_classes == 'all' else len(CLASSES) - len(things)
    output = model(toy_features(), batch_of([sample], toy_features()))
    assert output.semantic_logits.shape == (3, 1, asked)
    assert output.instance_logits.shape == (3, 1, 4, len(things))


def test_shapes_and_classes():
    model = build(torch.float32, semantic_classes='stuff')
    features, sample = toy_features(), toy_sample(5)
    output = model(features, batch_of([sample], features))
    assert output.semantic_classes.tolist() == [0, 1]
    assert output.thing_classes.tolist() == list(THINGS)
    assert output.affinity_semantic.shape == (3, 1, 2, 5)
    assert output.affinity_instance.shape == (3, 1, 5, 5)
    assert output.boxes_instance.shape == (3, 1, 5, 4)
    assert output.boxes.shape == (1, 5, 4) and output.denoising is None
    assert torch.allclose(output.boxes[0, :, 2] * 64, sample.patches.bboxes[:, 2])


def test_order_of_patches_is_nothing():
    model, features, sample = build(), toy_features(dtype=torch.float64), toy_sample(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = copy.deepcopy(sample)
    other.patches = sample.patches[order]
    first, second = (model(features, batch_of([s], features)) for s in (sample, other))
    assert torch.allclose(
        first.affinity_instance[..., order, :][..., order], second.affinity_instance, atol=1e-10
    )
    assert torch.allclose(first.semantic_logits, second.semantic_logits, atol=1e-10)


def test_a_class_is_found_alike_whatever_else_is_asked_for():
    """Semantic queries do not see one another."""
    model, features, sample = build(), toy_features(dtype=torch.float64), toy_sample(6)
    every = model(features, batch_of([sample], features))
    model.semantic_classes = torch.tensor([1, 3])
    two = model(features, batch_of([sample], features))
    assert torch.allclose(every.semantic_logits[..., [1, 3]], two.semantic_logits, atol=1e-10)
    assert torch.allclose(every.affinity_instance, two.affinity_instance, atol=1e-10)


def test_denoising_queries_tell_nobody(own_noise):
    model, features, sample = build(), toy_features(dtype=torch.float64), toy_sample(6)
    patches = batch_of([sample], features)
    with_truth = model(features, patches, noised(model, features, [sample]))
    without = model(features, patches)
    assert with_truth.denoising is not None
    for name in ('semantic_logits', 'instance_logits', 'affinity_semantic', 'affinity_instance'):
        assert torch.allclose(getattr(with_truth, name), getattr(without, name), atol=1e-10)


def test_half_precision():
    model = build(torch.float32)
    features, samples = joined(IMAGES, torch.float32)
    for index, sample in enumerate(samples):
        sample.gt_units.set_metainfo(dict(noise_seed=index))
    wide = model.loss(features, samples)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.loss(features, samples)
        output = model(features, batch_of(samples, features))
    assert output.affinity_instance.dtype == output.instance_logits.dtype == torch.float32
    assert half.keys() == wide.keys()
    for name, value in half.items():  # bfloat16 has steps of 0.4 to 0.8 %
        assert float(value) == pytest.approx(float(wide[name]), rel=0.02), name
    sum(half.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_names_of_the_state_dict():
    model = build(torch.float32)
    names = {name.rsplit('.', 1)[0] for name in model.state_dict()}
    assert {
        'patch_encoder.mlp.1',
        'patch_encoder.position.0',
        'patch_encoder.layers.0.self_attention.branch',
        'patch_encoder.layers.0.feed_forward.norm',
        'semantic_queries.content.0',
        'semantic_queries.box',
        'denoising.content',
        'decoder.position.0',
        'decoder.layers.0.self_attention.branch.out_proj',
        'decoder.layers.0.affinity',
        'decoder.layers.0.affinity.query',
        'decoder.layers.0.affinity.key',
        'decoder.layers.0.affinity.mlp.0',
        'decoder.layers.0.cross_attention.branch.out_proj',
        'decoder.norm',
        'classifier',
        'classifier.query',
        'classifier.text',
    } <= names
    assert 'text' not in model.state_dict()  # frozen, and read anew


def test_sizes_of_the_paper():
    """Layer by layer, for COCO: 133 classes of which 80 are things."""
    with torch.device('meta'):
        model = MODELS.build(dict(type='SAMCPHead', num_classes=133, thing_classes=range(80)))
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    d, ffn, text = 256, 2048, 512
    attention, norm = 4 * d * d + 4 * d, 2 * d
    feed_forward = 2 * d * ffn + ffn + d
    position = 2 * d * d + d + d * d + d
    mlp = (d * 49 * 1024 + 1024) + (1024 * d + d) + norm
    assert count['patch_encoder'] == mlp + position + 6 * (attention + feed_forward + 2 * norm)
    affinity = 2 * (d * d + d) + 2 * (8 * 8 + 8) + (8 + 1) + 1 + d + 1
    layer = 2 * attention + feed_forward + 3 * norm + affinity
    assert count['decoder'] == position + 6 * layer + norm
    assert count['semantic_queries'] == text * d + d + norm + 4 * text + 4
    assert count['denoising'] == 80 * d
    assert count['classifier'] == d * d + d + text * d + d + text + 2


def test_text_is_read_and_checked(tmp_path):
    model = MODELS.build(toy_head(text=write_text(tmp_path / 'text.npy')))
    assert not model.text.any()
    model.load_text(CLASSES)
    assert torch.allclose(model.text.norm(dim=1), torch.ones(len(CLASSES)))
    with pytest.raises(UserError, match='rows of 12 numbers for each of the 3 classes'):
        model.load_text(CLASSES[:3])
    with pytest.raises(UserError, match='model.head.text'):
        MODELS.build(toy_head()).load_text(CLASSES)


@pytest.mark.parametrize(
    'wrong', [dict(thing_classes=(2, 4)), dict(thing_classes=(2, 2)), dict(semantic_classes='x')]
)
def test_refuses_what_does_not_fit(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MODELS.build(toy_head(**wrong))


def test_a_sample_without_patches_is_refused():
    sample = toy_sample(2)
    del sample.patches
    with pytest.raises(UserError, match='LoadPatches'):
        batch_of([sample], toy_features())


def test_reads_any_pyramid():
    """Two levels, other channels and strides: nothing is tied to ResNet and FPN."""
    extra = dict(strides=(8, 16), hidden=24, num_layers=1, num_heads=2, ffn_dim=24)
    model = build(torch.float32, in_channels=5, patch_encoder=extra)
    levels = [torch.randn(1, 5, 64 // s, 64 // s) for s in (8, 16)]
    features = ImageFeatures([(levels, [0], (64, 64))], torch.tensor([[48.0, 64.0]]))
    assert all(value.isfinite() for value in model.loss(features, [toy_sample(4)]).values())
    assert CHANNELS != 5 and DIM == 16
