"""`SPMBackbone` in the configs of other people: nothing but `model.backbone` changes.

The models come from the files that MMSegmentation and MMDetection ship: MMSegmentation's with
fewer channels and layers, MMDetection's Mask R-CNN as it is.
"""

import copy

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from drop_in import (
    HEIGHT,
    RESNET,
    WIDTH,
    build,
    check_training,
    for_inference,
    parts,
    same,
    shipped,
    state_of,
    stir,
    train,
    wrap,
)
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

META = dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH), pad_shape=(HEIGHT, WIDTH))


def small_resnet(depth: int, expansion: int, in_channels) -> dict:
    """Overrides of a config with a ResNet: an eighth of the channels."""
    return {
        'pretrained': None,
        'backbone.depth': depth,
        'backbone.stem_channels': 8,
        'backbone.base_channels': 8,
        'decode_head.in_channels': in_channels,
        'decode_head.channels': 16,
        'auxiliary_head.in_channels': 32 * expansion,
        'auxiliary_head.channels': 8,
    }


#: Config file of MMSegmentation -> what makes it small, where it is prompted.
STOCK = {
    'pspnet_r50-d8': (small_resnet(18, 1, 64), RESNET),
    'upernet_r50': (
        small_resnet(50, 4, [32, 64, 128, 256]),
        ['layer1', 'layer2', 'layer3', 'layer3.2', 'layer4', 'out'],
    ),
    'setr_pup': (
        {
            'pretrained': None,
            'backbone.img_size': (HEIGHT, WIDTH),
            'backbone.embed_dims': 16,
            'backbone.num_heads': 2,
            'backbone.num_layers': 4,
            'backbone.out_indices': (0, 1, 2, 3),
            'decode_head.in_channels': 16,
            'decode_head.channels': 8,
            'auxiliary_head': None,
        },
        ['layers.0', 'layers.1', 'layers.3', 'out'],
    ),
    'upernet_swin': (
        {
            'backbone.embed_dims': 8,
            'backbone.depths': (1, 1, 2, 1),
            'backbone.num_heads': (1, 1, 2, 2),
            'decode_head.in_channels': [8, 16, 32, 64],
            'decode_head.channels': 16,
            'auxiliary_head.in_channels': 32,
            'auxiliary_head.channels': 8,
        },
        ['stages.0', 'stages.1', 'stages.2', 'stages.2.blocks.1', 'stages.3', 'out'],
    ),
    'segformer_mit-b0': (
        {
            'backbone.embed_dims': 8,
            'backbone.num_layers': (1, 1, 2, 1),
            'backbone.num_heads': (1, 1, 2, 2),
            'decode_head.in_channels': [8, 8, 16, 16],
            'decode_head.channels': 16,
        },
        # Before a stage, where its patch embedding takes a map, and inside one, where units take
        # tokens.
        ['layers.0.0', 'layers.1.0', 'layers.2.1.1', 'layers.3.0', 'out'],
    ),
}
every_stock = pytest.mark.parametrize('name', STOCK)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def stock_segmentor(name: str) -> tuple[ConfigDict, list[str]]:
    """The model of a config file of MMSegmentation, made small, and where to prompt it."""
    overrides, places = STOCK[name]
    config = shipped(mmseg, f'_base_/models/{name}.py')
    config.merge_from_dict({f'model.{key}': value for key, value in overrides.items()})
    config.model.data_preprocessor.size = (HEIGHT, WIDTH)
    return trained_on_cpu(config.model), places


def trained_on_cpu(config):
    """SyncBN trains on GPUs only."""
    if isinstance(config, dict):
        return ConfigDict({key: trained_on_cpu(value) for key, value in config.items()})
    if isinstance(config, list):
        return [trained_on_cpu(value) for value in config]
    return 'BN' if config == 'SyncBN' else config


def pictures() -> list:
    return list(torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), dtype=torch.uint8))


def batch_of_segmentation() -> dict:
    samples = [SegDataSample(metainfo=META) for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, HEIGHT, WIDTH)))
    return dict(inputs=pictures(), data_samples=samples)


# ------------------------------------------------------------ MMSegmentation
@every_stock
def test_a_segmentor_takes_its_checkpoint_and_predicts_as_before(name, tmp_path):
    config, places = stock_segmentor(name)
    stock, wrapped = for_inference(build(config)), for_inference(build(wrap(config, places)))
    assert type(stock) is type(wrapped)
    torch.save(dict(state_dict=stir(stock), meta={}), tmp_path / 'segmentor.pth')
    load_checkpoint(wrapped, str(tmp_path / 'segmentor.pth'))
    batch = batch_of_segmentation()
    with torch.no_grad():
        images = torch.randn(2, 3, HEIGHT, WIDTH)
        assert same(wrapped.extract_feat(images), stock.extract_feat(images))
        mine, theirs = (model.test_step(copy.deepcopy(batch)) for model in (wrapped, stock))
    for one, other in zip(mine, theirs):
        assert one.seg_logits.data.shape == (19, HEIGHT, WIDTH)
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert same(state_of(wrapped.backbone.backbone), state_of(stock.backbone))
    assert same(state_of(wrapped.decode_head), state_of(stock.decode_head))


@every_stock
def test_a_state_dict_of_a_segmentor_lacks_only_matchers(name):
    config, places = stock_segmentor(name)
    state = build(config).state_dict()
    missing, unexpected = build(wrap(config, places)).load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith(('backbone.matchers.', 'backbone.class_prior')) for key in missing)


@every_stock
def test_training_a_segmentor_reaches_every_matcher(name):
    config, places = stock_segmentor(name)
    losses = check_training(build(wrap(config, places)), batch_of_segmentation())
    assert losses == train(build(config), batch_of_segmentation(), steps=1)[0]


def test_what_a_config_names_pretrained_is_read_into_the_wrapped_backbone(tmp_path):
    config, places = stock_segmentor('pspnet_r50-d8')
    weights = stir(build(config).backbone)
    torch.save(weights, tmp_path / 'backbone.pth')
    config.pretrained = str(tmp_path / 'backbone.pth')  # the key of the stock file
    wrapped = build(wrap(config, places))
    wrapped.init_weights()
    state = wrapped.backbone.backbone.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in state.items())


def test_the_thin_segmentor_adds_the_interim_losses():
    config, places = stock_segmentor('pspnet_r50-d8')
    wrapped = wrap(config, places)
    wrapped.update(type='SPMSegmentor', interim_weights=[0.4, 0.4, 0, 0.4, 0.4])
    wrapped.backbone.num_classes = wrapped.decode_head.num_classes
    losses = check_training(build(wrapped), batch_of_segmentation())
    stock = train(build(config), batch_of_segmentation(), steps=1)[0]
    assert losses == stock | {f'interim_{i}.loss_ce' for i in (0, 1, 3, 4)}


# --------------------------------------------------------------- MMDetection
@pytest.fixture
def stock_detector(tmp_path) -> ConfigDict:
    """The model of the file; its weights from a file in place of the one on the Internet."""
    pytest.importorskip('mmcv._ext', reason='mmdet.models needs compiled operators of mmcv')
    config = shipped(mmdet, 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    pretrained = config.backbone.pop('init_cfg')
    weights = stir(build(config, 'mmdet').backbone)
    torch.save(weights, tmp_path / 'resnet50.pth')
    config.backbone.init_cfg = dict(pretrained, checkpoint=str(tmp_path / 'resnet50.pth'))
    return config


def batch_of_detection(semantic: bool) -> dict:
    boxes = torch.tensor([[4.0, 8.0, 40.0, 50.0], [30.0, 10.0, 90.0, 60.0]])
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left:right] = 1
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=dict(META, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 3]), masks=BitmapMasks(masks, HEIGHT, WIDTH)
        )
        if semantic:
            labels = torch.randint(0, 5, (1, HEIGHT, WIDTH))
            sample.gt_sem_seg = PixelData(sem_seg=labels)
        samples.append(sample)
    return dict(inputs=pictures(), data_samples=samples)


def test_mask_rcnn_takes_its_checkpoint_and_predicts_as_before(stock_detector, tmp_path):
    stock = for_inference(build(stock_detector, 'mmdet'))
    wrapped = for_inference(build(wrap(stock_detector, RESNET), 'mmdet'))
    assert type(stock) is type(wrapped)
    state = stir(stock)
    # So sure of its classes that there is something to predict.
    state['roi_head.bbox_head.fc_cls.weight'].mul_(30)
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'detector.pth')
    load_checkpoint(wrapped, str(tmp_path / 'detector.pth'))
    batch = batch_of_detection(semantic=False)
    with torch.no_grad():
        mine, theirs = (model.test_step(copy.deepcopy(batch)) for model in (wrapped, stock))
    for one, other in zip(mine, theirs):
        assert len(other.pred_instances)
        for key in ('bboxes', 'scores', 'labels', 'masks'):
            assert torch.equal(one.pred_instances[key], other.pred_instances[key])
    assert same(state_of(wrapped.backbone.backbone), state_of(stock.backbone))


def test_mask_rcnn_trains_its_matchers_without_semantic_labels(stock_detector):
    plain = train(build(stock_detector, 'mmdet'), batch_of_detection(semantic=True), steps=1)[0]
    assert {'loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask'} <= plain
    wrapped = wrap(stock_detector, RESNET)
    assert check_training(build(wrapped, 'mmdet'), batch_of_detection(semantic=False)) == plain

    spm = build(dict(type='SPMDetector', detector=wrapped), 'mmdet')
    assert type(spm) is type(build(stock_detector, 'mmdet'))
    assert train(spm, batch_of_detection(semantic=False), steps=1)[0] == plain


def test_semantic_labels_bring_interim_losses_into_mask_rcnn(stock_detector):
    wrapped = wrap(stock_detector, RESNET)
    batch = batch_of_detection(semantic=True)
    plain = train(build(wrapped, 'mmdet'), batch, steps=1)[0]
    assert not parts(plain, 'interim')
    losses = check_training(build(dict(type='SPMDetector', detector=wrapped), 'mmdet'), batch)
    assert losses - plain == {f'interim_{i}.loss_ce' for i in range(5)}
