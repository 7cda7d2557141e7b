"""Three tasks from one model and one prompt file: losses by hand, results from one decoding."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from prompt_files import prompt_of
from toy import CLASSES, HEIGHT, WIDTH, toy_batch, toy_segmentor, write_base

from mmprompt.common.errors import UserError
from mmprompt.common.mask_merge import instances, panoptic
from mmprompt.common.upsampling import upsample_masks
from mmprompt.datasets.transforms import describe_segments
from mmprompt.methods.ssprompt.losses import SSPromptMaskLoss
from mmprompt.methods.ssprompt.tasks import Answers
from mmprompt.registry import MODELS

THINGS = tuple(range(11, 19))
FROZEN = dict(type='DefaultPrompt')
NATIVE = dict(type='SSPromptMaskLoss', grid='native', matcher=dict(grid='native'), num_aux=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / 'base.safetensors')


def make(base, task='panoptic', test_cfg=None, **head):
    head = dict(dict(task=task, thing_classes=THINGS, mask_loss=NATIVE), **head)
    cfg = toy_segmentor(base, decode_head=head, test_cfg=dict(mode='whole', **(test_cfg or {})))
    model = MODELS.build(cfg)
    model.load_base()
    return model


def batch(size=(HEIGHT, WIDTH), count=2) -> dict:
    """Blocks of 8x8 pixels; each thing is told apart by columns, and class 11 is a crowd."""
    data = toy_batch(count, size)
    for sample in data['data_samples']:
        label = sample.gt_sem_seg.data[0].numpy()
        number = 1 + np.arange(size[1])[None] // 16
        number = np.where((label >= 12) & (label < 19), number, 0)
        ids = np.where(label == 255, 0, (label + 1) * 1000 + number)
        ids[label == 11] = 12000
        sample.set_data(
            dict(
                gt_panoptic_seg=PixelData(data=torch.from_numpy(ids)[None]),
                gt_segments=describe_segments(ids, THINGS),
            )
        )
    return data


def losses_of(model, data) -> dict:
    prepared = model.data_preprocessor(data, True)
    torch.manual_seed(0)
    return model.train()(**prepared, mode='loss')


def outputs_of(model, data):
    prepared = model.data_preprocessor(data, False)
    with torch.no_grad():
        return model.eval().decode_head.decode(model.extract_feat(prepared['inputs']))


def centres(x: torch.Tensor) -> torch.Tensor:
    """Bilinear values at the centres of cells of 4x4 pixels, which lie between their inner four."""
    return (x[1::4, 1::4] + x[1::4, 2::4] + x[2::4, 1::4] + x[2::4, 2::4]) / 4


def slow_loss(output, samples, task):
    """One image and one pair of query and mask after the other, on the cells of stride 4."""
    from scipy.optimize import linear_sum_assignment

    things = [*THINGS, len(CLASSES)]
    ce, weights, bce, count = 0.0, 0.0, 0.0, 0
    for logits, masks, sample in zip(output.pred_logits, output.pred_masks, samples):
        ids, segments = sample.gt_panoptic_seg.data[0], sample.gt_segments
        single = [
            (int(i), int(c))
            for i, c, crowd in zip(segments.ids, segments.labels, segments.is_crowd)
            if not crowd
        ]
        counted = torch.zeros(ids.shape)
        for i, _ in single:
            counted += (ids == i).float()
        if task == 'instance':
            single = [(i, c) for i, c in single if c in THINGS]
            logits = logits[:, things]
            single = [(i, things.index(c)) for i, c in single]
        weight = centres(counted)
        truth = [centres((ids == i).float()) for i, _ in single]
        probs = logits.softmax(-1)
        pair = torch.zeros(len(logits), len(single))
        cost = torch.zeros(len(logits), len(single))
        for q, t in itertools.product(range(len(logits)), range(len(single))):
            x, y = masks[q], truth[t]
            own = F.binary_cross_entropy_with_logits(x, y, reduction='none') * weight
            pair[q, t] = own.sum() / weight.sum()
            s = x.sigmoid() * weight
            dice = 1 - (2 * (s * y).sum() + 1) / (s.sum() + (y * weight).sum() + 1)
            cost[q, t] = 5 * pair[q, t] + 5 * dice - 2 * probs[q, single[t][1]]
        rows, columns = linear_sum_assignment(cost.numpy())
        label = torch.full((len(logits),), logits.shape[1] - 1)
        label[rows] = torch.tensor([single[t][1] for t in columns])
        factor = torch.full((len(logits),), 0.1)
        factor[rows] = 1
        ce += (factor * F.cross_entropy(logits, label, reduction='none')).sum()
        weights += factor.sum()
        bce += pair[rows, columns].sum()
        count += len(single)
    return float(2 * ce / weights), float(5 * bce / count)


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_losses_by_hand(base, task):
    """Crowds are no targets; crowd and void pixels do not count; stuff is background of things."""
    model = make(base, task)
    data = batch()
    found = losses_of(model, data)
    assert set(found) == {'decode.loss_class', 'decode.loss_bce'}
    samples = model.data_preprocessor(data, False)['data_samples']
    wanted = slow_loss(outputs_of(model, data), samples, task)
    assert found['decode.loss_class'].item() == pytest.approx(wanted[0], rel=1e-5)
    assert found['decode.loss_bce'].item() == pytest.approx(wanted[1], rel=1e-5)


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_void_and_crowd_pixels_do_not_matter(base, task):
    model, data = make(base, task), batch()
    before = losses_of(model, data)
    for sample in data['data_samples']:  # more void, no crowd: the same pixels count
        ids = sample.gt_panoptic_seg.data
        ids[ids == 12000] = 0
        sample.set_data(dict(gt_segments=describe_segments(ids[0].numpy(), THINGS)))
    torch.testing.assert_close(losses_of(model, data), before)


def test_unequal_images_are_one_batch(base):
    """Each alone and both together, on all cells: means over masks and queries of the batch."""
    model = make(base)
    one, two = batch((32, 64), 1), batch((64, 32), 1)
    both = {key: one[key] + two[key] for key in one}
    prepared = model.data_preprocessor.cast_data(both)
    groups = []
    for image, sample in zip(prepared['inputs'], both['data_samples']):
        size = tuple(sample.img_shape)
        features = model.extract_feat(
            model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)['inputs']
        )
        groups.append((features, [size]))
    head = model.decode_head
    joint = head.loss_of_groups(groups, both['data_samples'])
    parts = [head.loss_of_groups([g], [s]) for g, s in zip(groups, both['data_samples'])]
    counts = [int((~s.gt_segments.is_crowd).sum()) for s in both['data_samples']]
    matched = [min(c, head.decoder.num_queries) for c in counts]
    weights = [m + 0.1 * (head.decoder.num_queries - m) for m in matched]
    for name, shares in (('loss_bce', counts), ('loss_class', weights)):
        wanted = sum(float(p[name]) * w for p, w in zip(parts, shares)) / sum(shares)
        assert float(joint[name]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_gradients_go_where_they_are_needed(base, task):
    for spatial in (None, FROZEN):
        prompts = {} if spatial is None else dict(spatial_prompt=dict(spatial, num_prompts=9))
        model = make(base, task, mask_loss=dict(NATIVE, num_aux=None), **prompts)
        seen = []
        for layer in model.decode_head.decoder.layers:
            layer.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out.requires_grad))
        found = losses_of(model, batch())
        assert {'decode.aux_loss_class', 'decode.aux_loss_bce'} < set(found)
        sum(found.values()).backward()
        assert set(seen) == {spatial is None}
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        learned = {n.split('.')[1] for n in grads}
        assert learned == {'semantic_prompt'} | ({'spatial_prompt'} if spatial is None else set())
        rows = grads['decode_head.semantic_prompt.offset'].abs().sum(1)
        if task == 'instance':  # stuff rows keep serving semantic segmentation as they are
            assert not rows[:11].any() and rows[11:].any()


def test_points_are_random_without_a_grid(base):
    model = make(base, mask_loss=dict(type='SSPromptMaskLoss', num_points=20000, num_aux=0))
    sampled, native = losses_of(model, batch()), losses_of(make(base), batch())
    assert float(sampled['decode.loss_class']) == pytest.approx(
        float(native['decode.loss_class']), rel=0.3
    )
    assert set(sampled) == set(native)


def test_dice_is_there_on_request():
    assert SSPromptMaskLoss().weights == (2.0, 5.0, 0.0)
    loss = SSPromptMaskLoss(dice_weight=5.0)
    assert loss.weights[2] == 5.0 and loss.matcher.dice_weight == 5.0


def test_one_decoding_answers_all_three_tasks(base):
    options = dict(panoptic=True, instances=True, score_threshold=0.05, top_k=7)
    model = make(base, 'semantic', options)
    calls = []
    model.decode_head.decoder.register_forward_hook(lambda *args: calls.append(1))
    results = model.eval().test_step(batch())
    assert len(calls) == 1
    output = outputs_of(model, batch())
    for i, result in enumerate(results):
        maps = upsample_masks(output.pred_masks[i], (HEIGHT, WIDTH))
        wanted = panoptic(output.pred_logits[i], maps, THINGS, 0.05)
        assert len(wanted.ids) and torch.equal(result.pred_panoptic_seg.data[0], wanted.seg_map)
        assert torch.equal(result.pred_segments.labels, wanted.labels)
        wanted = instances(output.pred_logits[i], maps, 7, THINGS)
        assert torch.equal(result.pred_instances.masks, wanted.masks)
        assert result.pred_instances.bboxes.shape == (len(wanted.scores), 4)
        assert result.pred_sem_seg.data.shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    'task, cfg, fields',
    [
        ('semantic', {}, {'pred_sem_seg'}),
        ('instance', {}, {'pred_sem_seg', 'pred_instances'}),
        ('panoptic', {}, {'pred_sem_seg', 'pred_panoptic_seg', 'pred_segments'}),
        ('panoptic', dict(panoptic=False, instances=True, semantic=False), {'pred_instances'}),
    ],
)
def test_what_a_result_holds(base, task, cfg, fields):
    result = make(base, task, dict(cfg, keep_scores=False)).eval().test_step(batch())[0]
    assert {key for key in result.keys() if key.startswith('pred')} == fields


def test_a_prompt_serves_the_other_tasks(base, tmp_path):
    learned = make(base, 'panoptic')
    with torch.no_grad():
        learned.decode_head.semantic_prompt.offset.normal_()
    prompt = prompt_of(learned)
    assert prompt.recipe['task'] == 'panoptic'
    assert prompt.recipe['things'] == [CLASSES[index] for index in THINGS]
    path = prompt.save(tmp_path / 'prompt.safetensors')
    wanted = learned.eval().test_step(batch())[0].pred_sem_seg.data
    for task in ('semantic', 'instance'):
        other = make(base, task)
        other.load_prompt(path)
        assert torch.equal(other.eval().test_step(batch())[0].pred_sem_seg.data, wanted)


def test_impossible_wishes_are_named(base):
    for things in ((), (3, 19)):
        with pytest.raises(ValueError, match='needs thing_classes among 0 to 18'):
            make(base, 'instance', thing_classes=things)
    with pytest.raises(ValueError, match="'boxes'"):
        make(base, 'boxes')
    for cfg, words in ((dict(panoptic=True), 'thing_classes, found none'),):
        with pytest.raises(UserError, match=words):
            make(base, 'semantic', cfg, thing_classes=()).eval().test_step(batch())
    with pytest.raises(UserError, match="'slide'"):
        Answers.read(dict(mode='slide', instances=True), 'semantic', THINGS)
    with pytest.raises(UserError, match='LoadCityscapesPanoptic'):
        losses_of(make(base), toy_batch())
    data = batch()
    for sample in data['data_samples']:
        ids = sample.gt_panoptic_seg.data[0].numpy()
        sample.set_data(dict(gt_segments=describe_segments(ids, (13, 14))))
    with pytest.raises(UserError, match='the same thing_classes'):
        losses_of(make(base), data)
    data = batch()
    for sample in data['data_samples']:
        sample.gt_panoptic_seg = PixelData(data=sample.gt_panoptic_seg.data[:, ::2])
    with pytest.raises(UserError, match='size'):
        losses_of(make(base), data)
