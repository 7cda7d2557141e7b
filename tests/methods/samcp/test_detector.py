"""The whole model: unequal images, weights and caches, modes and files."""

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from safetensors.torch import save_file
from toy_samcp import (
    CLASSES,
    TEXT_DIM,
    toy_detector,
    toy_samcp_batch,
    toy_sample,
    write_text,
)

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import frozen_roots
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.registry import MODELS

SIZES = [(48, 64), (30, 90), (64, 64)]


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / 'text.npy')


@pytest.fixture
def weights(tmp_path):
    """A file of pretrained weights of the toy's backbone."""
    torch.manual_seed(9)
    backbone = MODELS.build(toy_detector('-').backbone)
    path = tmp_path / 'pretrained.safetensors'
    save_file(dict(backbone.state_dict()), path)
    return path


def build(config):
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(config))


def frozen(text, weights, **model):
    config = toy_detector(text, frozen_backbone=True, **model)
    config.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    return config


def batch(sizes=SIZES):
    generator = torch.Generator().manual_seed(4)
    samples = [toy_sample(3 + i, size, i) for i, size in enumerate(sizes)]
    images = [torch.randint(256, (3, *size), generator=generator).byte() for size in sizes]
    return dict(inputs=images, data_samples=samples)


def steps(model, data, count=2, lr=1e-2):
    model.train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=lr))
    return [model.train_step(copy.deepcopy(data), wrapper) for _ in range(count)]


def test_an_image_is_the_same_alone_and_in_a_batch_of_unequal_sizes(text):
    model = build(toy_detector(text)).double().eval()
    data = batch()
    canvas = torch.zeros(3, 3, 64, 96, dtype=torch.float64)
    canvas += 7  # whatever the batch is padded with
    for place, image in zip(canvas, data['inputs']):
        place[:, : image.shape[1], : image.shape[2]] = image.double() / 99 - 1
    together = model(canvas, data['data_samples'])
    for index, (height, width) in enumerate(SIZES):
        own = canvas[index : index + 1, :, :height, :width]
        alone = model(own, data['data_samples'][index : index + 1])
        n = 3 + index
        assert torch.allclose(
            together.semantic_logits[:, index], alone.semantic_logits[:, 0], rtol=0, atol=1e-10
        )
        found = together.affinity_instance[:, index, :n, :n]
        assert torch.allclose(found, alone.affinity_instance[:, 0], rtol=0, atol=1e-10)


def test_results_of_unequal_images(text):
    model = build(toy_detector(text)).eval()
    results = model.test_step(batch())
    for result, size in zip(results, SIZES):
        assert result.pred_sem_seg.data.shape == (1, *size)
        assert result.pred_instances.masks.shape[1:] == size
        assert result.pred_panoptic_seg.data.shape == (1, *size)


def test_training_learns_a_picture(text):
    model = build(toy_detector(text, head=dict(denoising=None)))
    losses = steps(model, toy_samcp_batch((5,)), 30)
    assert losses[-1]['loss'] < losses[0]['loss'] / 2
    assert all(value.isfinite() for value in losses[-1].values())


def test_sizes_are_exact_in_half_precision(text):
    """bfloat16 has even numbers alone above 256."""
    model = build(toy_detector(text)).to(torch.bfloat16)
    inputs = torch.zeros(2, 3, 288, 320, dtype=torch.bfloat16)
    metas = [dict(img_shape=(261, 319)), dict(img_shape=(288, 305))]
    features = model.extract_feat(inputs, metas)
    assert features.sizes.tolist() == [[261, 319], [288, 305]]
    assert features.scale[0].tolist() == [319, 261, 319, 261]


def test_modes(text):
    model = build(toy_detector(text)).eval()
    data = model.data_preprocessor(toy_samcp_batch())
    output = model(**data)
    assert isinstance(output, SAMCPOutput) and output.denoising is None
    assert all(value.requires_grad for value in model(**data, mode='loss').values())
    assert 'pred_instances' in model(**data, mode='predict')[0]
    with pytest.raises(RuntimeError, match="'loss', 'predict' or 'tensor'"):
        model(**data, mode='other')
    with pytest.raises(UserError, match='generate_patches'):
        model(data['inputs'])


def test_test_cfg_goes_to_the_predictor(text):
    model = build(toy_detector(text, test_cfg=dict(panoptic=False, instance_top_k=1))).eval()
    result = model.test_step(toy_samcp_batch())[0]
    assert 'pred_panoptic_seg' not in result and len(result.pred_instances.labels) <= 1
    with pytest.raises(ValueError, match='test_cfg.mask_rule'):
        build(toy_detector(text, test_cfg=dict(mask_rule='other')))


def test_frozen_backbone_is_read_late_and_stays(text, weights):
    config = frozen(text, weights)
    model = build(config)
    assert frozen_roots(model) == ['backbone']
    before = weights.read_bytes()
    weights.unlink()
    with pytest.raises(UserError, match='pretrained.safetensors'):
        model.load_base()
    weights.write_bytes(before)
    model.load_base()
    state = copy.deepcopy(model.backbone.state_dict())
    steps(model, toy_samcp_batch())
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_trained_backbone_begins_with_its_weights(text, weights):
    config = toy_detector(text)
    config.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    model = build(config)
    model.load_base()  # a test of a checkpoint needs no pretrained file
    drawn = model.backbone.conv1.weight.clone()
    model.init_weights()
    assert not torch.equal(model.backbone.conv1.weight, drawn)
    before = model.backbone.conv1.weight.clone()
    steps(model, toy_samcp_batch(), 1)
    assert not torch.equal(model.backbone.conv1.weight, before)
    assert model.base_fingerprint is None and model.export_files() == {}


def test_cached_maps_are_those_of_the_backbone(text, weights, tmp_path, monkeypatch):
    data, losses = batch(SIZES[:1] * 2), []
    for cache in (None, dict(root=str(tmp_path / 'maps'))):
        cached = build(frozen(text, weights, feature_cache=cache))
        losses.append(steps(cached, data))
    for plain, kept in zip(*losses):
        assert all(torch.equal(plain[name], kept[name]) for name in plain)

    def encode(images):
        raise AssertionError('encoded again')

    monkeypatch.setattr(cached.backbone, 'forward', encode)
    assert steps(cached, data, 1)[0]['loss'].isfinite()
    assert len(list((tmp_path / 'maps').rglob('*.safetensors'))) == 2


def test_another_backbone_has_other_entries(text, weights):
    one = build(frozen(text, weights, feature_cache=dict(root=None)))
    config = frozen(text, weights, feature_cache=dict(root=None))
    config.backbone.style = 'caffe'  # the same weights, another network
    other = build(config)
    fingerprints = [model._feature_fingerprint() for model in (one, other)]
    assert fingerprints[0] != fingerprints[1]
    assert one.base_fingerprint == other.base_fingerprint


def test_files(text, weights, tmp_path):
    model = build(frozen(text, weights))
    steps(model, toy_samcp_batch())
    ((name, file),) = model.export_files().items()
    assert name == 'head.safetensors' and not any(k.startswith('backbone') for k in file.tensors)
    path = file.save(tmp_path / name)
    other = build(frozen(text, weights))
    other.load_prompt(path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    smaller = build(frozen(text, weights, head=dict(dim=32)))
    with pytest.raises(UserError, match='shapes'):
        smaller.load_prompt(path)


@pytest.mark.parametrize(
    ('theirs', 'named'),
    [
        (('road', 'sky', 'person', 'car'), "number 2 'person'"),
        (CLASSES[:3], 'number 3 None'),
        ((*CLASSES, 'dog'), "number 4 'dog'"),
    ],
)
def test_classes_of_the_data_set_are_compared(text, theirs, named):
    model = build(toy_detector(text))
    model.check_dataset(dict(classes=CLASSES))
    model.check_dataset({})
    with pytest.raises(UserError, match=named):
        model.check_dataset(dict(classes=theirs))


def test_refuses_what_does_not_fit(text):
    with pytest.raises(ValueError, match='4 classes, but head.num_classes is 5'):
        build(toy_detector(text, head=dict(num_classes=5)))
    with pytest.raises(ValueError, match='feature_cache'):
        build(toy_detector(text, feature_cache=dict(root=None)))


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (
            dict(
                type='mmseg.SwinTransformer',
                embed_dims=4,
                depths=(1, 1, 1, 1),
                num_heads=(1, 1, 1, 1),
                window_size=4,
                out_indices=(0, 1, 2, 3),
            ),
            [4, 8, 16, 32],
        ),
        (dict(type='mmseg.MixVisionTransformer', embed_dims=4, num_heads=[1, 2, 4, 8]), None),
    ],
    ids=['swin', 'mit'],
)
def test_any_backbone_and_neck(text, backbone, channels):
    channels = channels or [4, 8, 16, 32]
    config = toy_detector(text)
    config.backbone, config.neck.in_channels = backbone, channels
    losses = steps(build(config), toy_samcp_batch(), 1)[0]
    assert all(value.isfinite() for value in losses.values())


def test_without_a_neck(text):
    config = toy_detector(text, neck=None)
    config.head.in_channels = 16
    config.backbone.out_indices = (2,)
    config.head.patch_encoder.strides = (16,)
    assert steps(build(config), toy_samcp_batch(), 1)[0]['loss'].isfinite()


def test_labels_of_unequal_images_are_padded_by_the_preprocessor(text):
    model, data = build(toy_detector(text)), batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data)
    assert steps(model, data, 1)[0]['loss'].isfinite()


def test_expected_views_reach_the_cache(text, weights):
    model = build(frozen(text, weights, feature_cache=dict(root=None)))
    model.expect_views(12)
    model.eval().test_step(toy_samcp_batch())
    assert model._cache.expected_views == 12 and len(model._cache) == 2


@pytest.mark.parametrize('semantic', ['all', 'stuff'])
@pytest.mark.parametrize(
    ('classes', 'things'), [(0, 0), (1, 0), (1, 1), (300, 0), (300, 300), (300, 100)]
)
def test_any_number_of_classes(text, classes, things, semantic):
    """Only stuff, only things, nothing at all; the weights are those of any other number."""
    model = build(toy_detector(text, head=dict(semantic_classes=semantic))).eval()
    rows = torch.randn(classes, TEXT_DIM, generator=torch.Generator().manual_seed(0))
    model.set_classes([f'class {i}' for i in range(classes)], range(things), rows)
    found = model.test_step(toy_samcp_batch())[0]
    labels = set(found.pred_sem_seg.data.unique().tolist())
    assert labels <= {*range(classes), max(255, classes)}
    assert set(found.pred_instances.labels.tolist()) <= set(range(things))
    assert bool(len(found.pred_instances)) == bool(things)


@pytest.mark.parametrize(('classes', 'things'), [(0, 0), (1, 0), (1, 1)])
def test_losses_of_no_class_and_of_one(text, tmp_path, classes, things):
    path = tmp_path / 'rows.npy'
    np.save(path, np.ones((classes, TEXT_DIM), np.float32))
    head = dict(num_classes=classes, thing_classes=range(things))
    model = build(toy_detector(str(path), head=head, classes=CLASSES[:classes]))
    data = toy_samcp_batch()
    for sample in data['data_samples']:
        units = sample.gt_units
        kept = units.labels < classes
        units = units[kept]
        units.is_instance = torch.full_like(units.is_instance, bool(things))
        sample.gt_units = units
    assert all(value.isfinite() for value in steps(model, data, 1)[0].values())
