"""Pre-training at toy size: losses, predictions, freezing, the cache, and the exported file."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from toy import CLASSES, toy_batch, toy_seem, write_base

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import frozen_roots
from mmprompt.datasets.transforms import describe_segments
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import read_base
from mmprompt.foundation.seem.drawing import draw_strokes
from mmprompt.foundation.seem.export import ExportBaseHook
from mmprompt.foundation.seem.templates import BARE_TEMPLATES
from mmprompt.registry import MODELS

THINGS = tuple(range(11, 19))
CRITERION = dict(grid='native', matcher=dict(grid='native'), dense_weight=1.0)


def _model(**kwargs):
    torch.manual_seed(0)
    config = dict(
        type='SEEMPretrainer',
        seem=toy_seem(),
        classes=CLASSES,
        templates=BARE_TEMPLATES,
        thing_classes=THINGS,
        criterion=CRITERION,
    )
    return MODELS.build({**config, **kwargs})


def _batch(model, training=True):
    """Preprocessed toy images whose things are single instances, but for crowds of class 11."""
    data = toy_batch()
    for sample in data['data_samples']:
        labels = sample.gt_sem_seg.data
        ids = (labels + 1) * 1000 + ((labels > 11) & (labels < 19)).long()
        ids[labels == 255] = 0
        sample.set_data(
            dict(
                gt_panoptic_seg=PixelData(data=ids),
                gt_segments=describe_segments(ids[0].numpy(), THINGS),
            )
        )
    data = model.data_preprocessor(data, training)
    return data['inputs'], data['data_samples']


def test_targets_are_the_segments_but_for_crowds():
    model = _model()
    inputs, samples = _batch(model)
    targets, labels = model._targets(samples, inputs)
    assert labels.shape == (2, 32, 64)
    for image in range(2):
        mine = targets.images == image
        present = set(labels[image].unique().tolist()) - {255, 11}
        assert sorted(targets.labels[mine].tolist()) == sorted(present)
        for mask, label in zip(targets.masks[mine], targets.labels[mine]):
            assert torch.equal(mask, labels[image] == label)


def test_one_step_reaches_every_parameter():
    model = _model(stroke_prob=1.0)
    losses = model(*_batch(model), mode='loss')
    assert {'loss_class', 'aux_loss_dice', 'loss_dense', 'stroke_loss_bce'} <= set(losses)
    sum(losses.values()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # memory prompts wait for a second round of strokes, the second indicator for negative ones
    assert all('memory_' in name for name in idle), idle


def test_ten_steps_on_one_batch_lower_the_loss():
    model = _model()
    inputs, samples = _batch(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(10):
        total = sum(model(inputs, samples, mode='loss').values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_prediction_has_the_size_of_the_file():
    model = _model(test_cfg=dict(panoptic=True, instances=True, score_threshold=0.0)).eval()
    inputs, samples = _batch(model, training=False)
    samples[1].set_metainfo(dict(img_shape=(30, 60), ori_shape=(60, 120)))
    first, second = model(inputs, samples, mode='predict')
    assert first.pred_sem_seg.data.shape == (1, 32, 64)
    assert second.pred_sem_seg.data.shape == second.pred_panoptic_seg.data.shape == (1, 60, 120)
    found = second.pred_panoptic_seg.data.unique()
    assert set(found.tolist()) - {0} == set(second.pred_segments.ids.tolist())
    assert second.pred_instances.masks.shape[1:] == (60, 120)
    assert set(second.pred_instances.labels.tolist()) <= set(THINGS)


def test_semantic_prediction_alone_by_default():
    model = _model().eval()
    (sample, _) = model(*_batch(model, training=False), mode='predict')
    assert 'pred_panoptic_seg' not in sample and 'pred_instances' not in sample
    output = model(_batch(model, training=False)[0], mode='tensor')
    assert model.semantic().shape == (len(CLASSES) + 1, 16)
    assert output.pred_logits.shape == (2, 10, len(CLASSES) + 1)


def test_training_renews_the_class_embeddings():
    model = _model().eval()
    before = model.semantic()
    assert model.semantic() is before
    with torch.no_grad():
        model.seem.text_encoder.lang_proj.normal_()
    model.train()
    assert not torch.equal(model.eval().semantic(), before)


@pytest.mark.parametrize('cache', [None, dict(root=None, memory_gb=0.1)])
def test_a_frozen_backbone_stays_as_it_is(cache):
    model = _model(frozen=('backbone',), feature_cache=cache)
    model.init_weights()
    model.train()
    assert frozen_roots(model) == ['seem.backbone']
    assert not model.seem.backbone.training and model.seem.pixel_decoder.training
    inputs, samples = _batch(model)
    sum(model(inputs, samples, mode='loss').values()).backward()
    assert all(p.grad is None for p in model.seem.backbone.parameters())
    assert all(p.grad is not None for p in model.seem.pixel_decoder.parameters())
    wanted = model.seem.encode_image(inputs).mask_features
    for _ in range(2):  # computed, then remembered
        torch.testing.assert_close(model.encode(inputs).mask_features, wanted)
    if cache is not None:
        assert len(model._cache) == 2


def test_the_cache_tells_backbones_of_equal_weights_apart(tmp_path):
    other = toy_seem()
    other['backbone']['stem_padding'] = 2  # 3 by default
    inputs, _ = _batch(_model())
    found = []
    for seem in (toy_seem(), other):
        model = _model(seem=seem, frozen=('backbone',), feature_cache=dict(root=str(tmp_path)))
        model.eval()  # no stochastic depth
        found.append(model.encode(inputs).mask_features)
        torch.testing.assert_close(found[-1], model.seem.encode_image(inputs).mask_features)
    assert not torch.allclose(*found)


def test_an_unknown_part_to_freeze_is_named():
    with pytest.raises(UserError, match='backbon'):
        _model(frozen=('backbon',))


def test_it_starts_from_a_base_file(tmp_path):
    path = write_base(tmp_path / 'base.safetensors', seed=3)
    model = _model(base=str(path))
    held = dict(model.named_parameters())
    model.init_weights()
    tensors, _ = read_base(path)
    for name, value in model.seem.state_dict().items():
        assert torch.equal(value, tensors[name])
    # the optimiser was made before: it must still hold the very parameters
    assert all(held[name] is p for name, p in model.named_parameters())
    with pytest.raises(UserError, match='base.safetensors'):
        _model(base=str(path), seem=_wider()).init_weights()


@pytest.mark.parametrize(
    'part, key, value',
    [('decoder', 'num_heads', 4), ('text_encoder', 'num_heads', 4), ('backbone', 'block', 'x')],
)
def test_a_base_trained_under_another_config_is_refused(part, key, value, tmp_path):
    """Heads leave no trace in shapes: the weights would load and give other features."""
    model = _model(base=str(write_base(tmp_path / 'base.safetensors')))
    model.seem_config[part][key] = value
    with pytest.raises(UserError, match=rf'{part}\.{key} .*found {value!r}.*Correct seem\.{part}'):
        model.load_base()


def test_testing_loads_what_no_checkpoint_holds(tmp_path):
    path = write_base(tmp_path / 'base.safetensors', seed=3)
    model = _model(base=str(path), frozen=('backbone',))
    assert frozen_roots(model) == []
    model.load_base()
    assert frozen_roots(model) == ['seem.backbone']
    tensors, _ = read_base(path)
    with torch.no_grad():
        model.seem.decoder.query_feat.zero_()  # training, or a checkpoint
    model.load_base()  # a second call must not undo it
    assert model.seem.decoder.query_feat.abs().sum() == 0
    name = next(k for k in tensors if k.startswith('backbone.'))
    assert torch.equal(model.seem.state_dict()[name], tensors[name])


def _wider():
    seem = toy_seem()
    seem['decoder']['num_queries'] += 1
    return seem


def _runner(model, work_dir):
    return SimpleNamespace(
        model=model, work_dir=str(work_dir), seed=5, iter=9, logger=MMLogger.get_current_instance()
    )


def test_the_exported_file_builds_the_same_model(tmp_path):
    model = _model().eval()
    hook = ExportBaseHook(out='base.safetensors', interval=10, record=dict(note='toy'))
    runner = _runner(model, tmp_path)
    hook.after_train_iter(runner, 8)
    assert (tmp_path / 'base.safetensors').exists()
    _, metadata = read_base(tmp_path / 'base.safetensors')
    record = metadata['record']
    assert record['note'] == 'toy' and record['iterations'] == 10 and record['seed'] == 5
    again = SEEM.from_checkpoint(tmp_path / 'base.safetensors')
    inputs, _ = _batch(model, training=False)
    with torch.no_grad():
        wanted = model(inputs, mode='tensor')
        semantic = again.text_encoder.class_embeddings(CLASSES, BARE_TEMPLATES)
        found = again.decode(again.encode_image(inputs), semantic)
    assert torch.equal(found.pred_logits, wanted.pred_logits)
    assert torch.equal(found.pred_masks, wanted.pred_masks)


def test_the_record_tells_how_the_data_came_to_be(tmp_path):
    described = tmp_path / 'streets.json'
    described.write_text('{"generator": "abc"}')
    model, hook = _model(), ExportBaseHook(data_record=str(described))
    runner = _runner(model, tmp_path)
    hook.before_train(runner)
    hook.after_train(runner)
    record = read_base(tmp_path / 'base.safetensors')[1]['record']
    assert record['data'] == {'generator': 'abc'} and 'base' not in record
    with pytest.raises(UserError, match='nowhere.json'):
        ExportBaseHook(data_record='nowhere.json').before_train(runner)


def test_the_record_names_the_base_that_training_started_from(tmp_path):
    first = write_base(tmp_path / 'first.safetensors')
    model, hook = _model(base=str(first)), ExportBaseHook(out='second.safetensors')
    runner = _runner(model, tmp_path)
    hook.before_train(runner)
    hook.after_train(runner)
    record = read_base(tmp_path / 'second.safetensors')[1]['record']
    assert record['base']['fingerprint'] == read_base(first)[1]['fingerprint']
    assert record['base']['record'] == {'seed': 0}


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path):
    model, hook = _model(), ExportBaseHook(out='base.safetensors')
    hook.after_train(_runner(model, tmp_path))
    good = (tmp_path / 'base.safetensors').read_bytes()
    with torch.no_grad():
        model.seem.decoder.query_feat[0, 0] = float('nan')
    hook.after_train(_runner(model, tmp_path))
    assert (tmp_path / 'base.safetensors').read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ['base.safetensors']


def test_strokes_lie_inside_their_mask():
    torch.manual_seed(0)
    masks = torch.zeros(4, 40, 60, dtype=torch.bool)
    masks[0, 5:20, 10:50] = True
    masks[1, :, 30] = True
    masks[2, 7, 9] = True  # and the last one is empty
    strokes = draw_strokes(masks, radius=2, length=20)
    assert not (strokes & ~masks).any()
    assert strokes.flatten(1).any(dim=1).tolist() == [True, True, True, False]
    extent = strokes[1].nonzero()[:, 0]
    assert extent.max() - extent.min() <= 20 + 2 * 2
