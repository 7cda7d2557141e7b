"""The segmentor on any size: batches of unequal images, the order of merging, tiles, flips."""

import copy

import pytest
import torch
import torch.nn.functional as F
from largest import Largest
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from toy import CLASSES, stir, toy_segmentor, write_base

from mmprompt.common import upsampling
from mmprompt.common.errors import UserError
from mmprompt.common.mask_merge import semantic_scores
from mmprompt.methods.ssprompt import imagewise

SIZES = [(31, 33), (32, 64), (1, 45), (45, 1), (32, 33), (64, 20)]
ORDERS = [range(len(SIZES)), [3, 1, 4, 0, 5, 2]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / 'base.safetensors')


def build(base, **model):
    """In double, prompts away from their defaults."""
    model = MODELS.build(toy_segmentor(base, **model)).double().eval()
    model.load_base()
    stir(model.decode_head.decoder)
    with torch.no_grad():
        for prompt in (model.decode_head.spatial_prompt, model.decode_head.semantic_prompt):
            generator = torch.Generator().manual_seed(1)
            prompt.offset.normal_(std=0.5, generator=generator)
    return model


def images(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator).to(dtype) for size in SIZES]


def samples(ori_shapes=SIZES, **meta):
    generator = torch.Generator().manual_seed(0)
    made = []
    for size, ori_shape in zip(SIZES, ori_shapes):
        made.append(SegDataSample(metainfo=dict(img_shape=size, ori_shape=ori_shape, **meta)))
        label = torch.randint(len(CLASSES), (1, *size), generator=generator)
        label[:, :, ::5] = 255
        made[-1].gt_sem_seg = PixelData(data=label)
    return made


def batch(order, given=None, inputs=None):
    """As `mmseg.SegDataPreProcessor` lays unequal images of a training batch together."""
    given, inputs = copy.deepcopy(given or samples()), inputs or images()
    return stack_batch([inputs[i] for i in order], [given[i] for i in order], size_divisor=32)


@pytest.mark.parametrize('mode', ['published', 'logits', 'scores', 'slide'])
@pytest.mark.parametrize('flip', [None, 'horizontal'])
def test_an_image_has_the_same_result_in_any_batch(base, mode, flip):
    test_cfg, head = dict(mode='whole'), {}
    if mode == 'slide':
        test_cfg = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    else:
        head = dict(test_resize=mode)
    model = build(base, test_cfg=test_cfg, decode_head=head)
    shapes = [(70, 50), *SIZES[1:4], (33, 32), (100, 31)]
    given = samples(shapes, flip=flip is not None, flip_direction=flip)
    alone = [model.predict(*batch([i], given))[0] for i in range(len(SIZES))]
    assert max(len(result.pred_sem_seg.data.unique()) for result in alone) > 2
    for order in ORDERS:
        for index, result in zip(order, model.predict(*batch(order, given))):
            assert result.pred_sem_seg.data.shape == (1, *shapes[index])
            expected = alone[index]
            assert torch.equal(result.pred_sem_seg.data, expected.pred_sem_seg.data)
            torch.testing.assert_close(
                result.seg_logits.data, expected.seg_logits.data, rtol=1e-10, atol=1e-10
            )


def by_hand(model, inputs, labels):
    """Loss of the concatenation of all pixels, each image encoded and decoded on its own."""
    scores = []
    for image, (height, width) in zip(inputs, SIZES):
        output = model.decode_head.decode(model.extract_feat(image[None]))
        small = semantic_scores(output.pred_logits, output.pred_masks)
        whole = F.interpolate(small, scale_factor=4, mode='bilinear', align_corners=False)
        scores.append(whole[0, :, :height, :width].flatten(1))
    scores, labels = torch.cat(scores, 1), torch.cat([label.flatten() for label in labels])
    shares = (scores + 1e-6) / (scores + 1e-6).sum(0)
    return F.nll_loss(shares.log().t(), labels, ignore_index=255)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_loss_and_gradients_are_those_of_all_pixels_together(base):
    model = build(base)
    expected = by_hand(model, images(), [s.gt_sem_seg.data for s in samples()])
    wanted = gradients(model, expected)
    found = []
    for order in ORDERS:
        losses = model.loss(*batch(order))
        torch.testing.assert_close(losses['decode.loss_sem'], expected, rtol=1e-10, atol=0)
        found.append([losses['decode.loss_sem'], *gradients(model, losses['decode.loss_sem'])])
        for mine, theirs in zip(found[-1][1:], wanted):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(*found):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_the_loss_of_a_batch_is_the_mean_over_its_images_pixels(base):
    model = build(base)
    alone = [model.loss(*batch([i])) for i in range(len(SIZES))]
    counts = [(s.gt_sem_seg.data != 255).sum() for s in samples()]
    together = model.loss(*batch(ORDERS[1]))
    for key in ('decode.loss_sem', 'decode.acc_seg'):
        mean = sum(one[key] * count for one, count in zip(alone, counts)) / sum(counts)
        torch.testing.assert_close(together[key].double(), mean.double(), rtol=1e-5, atol=1e-5)
    key = 'decode.loss_sem'
    mean = sum(one[key] * count for one, count in zip(alone, counts)) / sum(counts)
    torch.testing.assert_close(together[key], mean, rtol=1e-10, atol=1e-10)


def test_equal_images_take_one_pass(base, monkeypatch):
    model = build(base)
    seen = []
    monkeypatch.setattr(
        model, 'extract_feat', lambda x, run=model.extract_feat: (seen.append(x.shape), run(x))[1]
    )
    inputs, given = batch([0, 0, 0])
    model.loss(inputs, given)
    assert seen == [(3, 3, 32, 64)]


def test_the_cache_sees_what_the_image_is_alone(base, tmp_path):
    model = build(base, feature_cache=dict(root=str(tmp_path / 'features'))).float()
    inputs = images(torch.float32)
    model.loss(*batch(ORDERS[0], inputs=inputs))
    calls = []
    model.backbone.register_forward_hook(lambda *args: calls.append(1))
    for order in ([0], [4, 2], ORDERS[1]):
        model.loss(*batch(order, inputs=inputs))
        model.predict(*batch(order, inputs=inputs))
    assert not calls


@pytest.mark.parametrize('step', ['test_step', 'val_step'])
def test_unequal_images_pass_the_stock_preprocessor(base, step):
    model = build(base).float()
    inputs = [image.mul(60).add(128).clamp(0, 255).byte() for image in images()]
    run = getattr(model, step)
    alone = [run(dict(inputs=[x], data_samples=[s]))[0] for x, s in zip(inputs, samples())]
    together = run(dict(inputs=inputs, data_samples=samples()))
    for mine, theirs in zip(together, alone):
        torch.testing.assert_close(mine.seg_logits.data, theirs.seg_logits.data)
        assert mine.img_shape == theirs.img_shape


@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
def test_the_published_order(base, flip):
    """Masks to the padded size, cut, turned back, to the image's size, and only then merged."""
    model = build(base)
    inputs = images()[0][None]
    meta = dict(img_shape=(31, 33), ori_shape=(50, 80), flip=flip is not None, flip_direction=flip)
    result = model.predict(inputs, [SegDataSample(metainfo=meta)])[0]
    with torch.no_grad():
        output = model.decode_head.decode(model.extract_feat(inputs))
    masks = F.interpolate(output.pred_masks, size=(32, 64), mode='bilinear')[..., :31, :33]
    if flip:
        masks = masks.flip(3 if flip == 'horizontal' else 2)
    masks = F.interpolate(masks, size=(50, 80), mode='bicubic', antialias=True)
    scores = semantic_scores(output.pred_logits, masks)[0]
    torch.testing.assert_close(result.seg_logits.data, scores, rtol=1e-12, atol=1e-12)
    assert torch.equal(result.pred_sem_seg.data[0], scores.argmax(0))


@pytest.mark.parametrize('mode', ['logits', 'scores'])
@pytest.mark.parametrize('flip', [None, 'vertical'])
def test_the_other_orders_are_mmsegmentations(base, mode, flip):
    model = build(base, decode_head=dict(test_resize=mode))
    meta = dict(img_shape=(32, 64), ori_shape=(50, 80), flip=flip is not None, flip_direction=flip)
    given = [SegDataSample(metainfo=meta) for _ in range(2)]
    inputs = torch.stack([images()[1], images()[1].flip(2)])
    with torch.no_grad():
        expected = EncoderDecoder.predict(model, inputs, copy.deepcopy(given))
    for mine, theirs in zip(model.predict(inputs, given), expected):
        torch.testing.assert_close(mine.seg_logits.data, theirs.seg_logits.data)
        assert torch.equal(mine.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_at_its_own_size_an_image_has_one_answer_in_either_order(base):
    found = []
    for mode in ('published', 'logits'):
        model = build(base, decode_head=dict(test_resize=mode))
        found.append([result.seg_logits.data for result in model.predict(*batch(ORDERS[0]))])
    for published, logits in zip(*found):
        torch.testing.assert_close(published, logits, rtol=1e-12, atol=1e-12)


def test_scores_are_kept_on_request_or_while_they_are_small(base, monkeypatch):
    for keep, limit, kept in [
        *((None, 10**9, True), (None, 100, False), (True, 100, True), (False, 10**9, False)),
    ]:
        monkeypatch.setattr(imagewise, 'KEPT_SCORES', limit)
        test_cfg = dict(mode='whole') if keep is None else dict(mode='whole', keep_scores=keep)
        result = build(base, test_cfg=test_cfg).predict(*batch([0]))[0]
        assert ('seg_logits' in result) is kept
        assert result.pred_sem_seg.data.shape == (1, 31, 33)


def test_a_large_file_costs_its_label_map_and_a_tile(base, monkeypatch):
    monkeypatch.setattr(upsampling, 'TILE_VALUES', 50_000)
    inputs, shape = images()[1][None], (300, 400)
    for keep, most in ((False, 120_000), (True, len(CLASSES) * 120_000)):
        model = build(base, test_cfg=dict(mode='whole', keep_scores=keep))
        sample = SegDataSample(metainfo=dict(img_shape=SIZES[1], ori_shape=shape))
        with Largest() as watch:
            (result,) = model.predict(inputs, [sample])
        assert result.pred_sem_seg.data.shape == (1, *shape) and watch.values == most


def test_flipping_at_test_time(base):
    """MMSegmentation's own wrapper averages both views of each image."""
    model = build(base).float()
    wrapped = MODELS.build(dict(type='mmseg.SegTTAModel', module=model))
    image = images()[0].mul(60).add(128).clamp(0, 255).byte()
    views, given = [], []
    for flip in (False, True):
        meta = dict(img_shape=(31, 33), ori_shape=(40, 50), flip=flip, img_path='a.png')
        given.append(SegDataSample(metainfo=dict(meta, flip_direction='horizontal')))
        views.append(image.flip(2) if flip else image)
    data = dict(inputs=[[v] for v in views], data_samples=[[s] for s in given])
    with torch.no_grad():
        (merged,) = wrapped.test_step(copy.deepcopy(data))
        single = [
            model.test_step(dict(inputs=[v], data_samples=[s]))[0].seg_logits.data
            for v, s in zip(views, given)
        ]
    expected = sum(scores.softmax(0) for scores in single).argmax(0)
    assert torch.equal(merged.pred_sem_seg.data.squeeze(), expected)


def test_what_cannot_be_meant_is_named(base):
    with pytest.raises(UserError, match="found 'sliding'"):
        build(base, test_cfg=dict(mode='sliding')).predict(*batch([0]))
    given = samples(flip=True, flip_direction='sideways')
    with pytest.raises(UserError, match="found 'sideways'"):
        build(base).predict(*batch([0], given))
