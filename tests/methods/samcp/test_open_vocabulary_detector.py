"""S_ov inside of the model, seen and unseen classes, other label spaces, what the docs say."""

import argparse
import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_clip  # noqa: F401, registers ToyCLIP
from mmengine.config import Config
from mmengine.logging import MMLogger
from toy_samcp import CLASSES, TEXT_DIM, toy_detector, toy_samcp_batch, write_text

from mmprompt.apis.cli import OptionsAction, apply_options
from mmprompt.common.errors import UserError
from mmprompt.common.hooks import FrozenBaseHook
from mmprompt.common.texts import Texts
from mmprompt.registry import MODELS, TASK_UTILS

ROOT = Path(__file__).resolve().parents[3]


# ---------------------------------------------------------------- in the detector
@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / 'text.npy')


def build(text, **model):
    config = toy_detector(text, **model)
    config.backbone.type, config.backbone.embed_dim = 'ToyCLIP', TEXT_DIM
    torch.manual_seed(0)
    return MODELS.build(config).eval()


def instances(model, data=None):
    return model.test_step(copy.deepcopy(data or toy_samcp_batch()))


def test_without_clip_and_at_kappa_zero_nothing_changes(text):
    for plain, zero in zip(
        instances(build(text)), instances(build(text, open_vocabulary=dict(kappa=0.0)))
    ):
        assert torch.equal(plain.pred_instances.scores, zero.pred_instances.scores)
        for name in ('pred_sem_seg', 'pred_panoptic_seg'):
            assert torch.equal(plain.get(name).data, zero.get(name).data)


def test_at_kappa_one_clip_alone_decides(text):
    """Against the backbone called by hand, mask by mask."""
    model = build(text, open_vocabulary=dict(kappa=1.0), test_cfg=dict(instance_top_k=7))
    data = toy_samcp_batch((5,))
    found = instances(model, data)[0].pred_instances
    prepared = model.data_preprocessor(copy.deepcopy(data))
    last = model.backbone(prepared['inputs'])[-1]  # (1, 32, 2, 2): 48 x 64 became 64 x 64
    cells = last.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)[0, :, :48, :64]
    for mask, label, score in zip(found.masks, found.labels, found.scores):
        image = model.backbone.embed(cells[:, mask].mean(dim=1)[None])
        probs = (9.0 * image @ model.head.text.t()).softmax(dim=-1)
        assert score.item() == pytest.approx(probs[0, label].item(), rel=1e-4)


def test_the_mask_of_the_whole_image_is_what_the_library_says_of_it(text):
    """Against encode_image of open_clip, of an image that needs no resizing and no padding."""
    open_clip = pytest.importorskip('open_clip')
    from tiny_clip import CHANNELS
    from toy_samcp_leaves import CLIP

    vision = {**CLIP['vision_cfg'], 'image_size': 64}
    clip = {**CLIP, 'embed_dim': TEXT_DIM, 'vision_cfg': vision}
    config = toy_detector(text, open_vocabulary=dict(kappa=1.0))
    config.backbone = dict(type='CLIPConvNeXt', model=clip)
    config.neck.in_channels = list(CHANNELS)
    torch.manual_seed(0)
    model, library = MODELS.build(config).eval(), open_clip.CLIP(**clip).eval()
    library.visual.load_state_dict(model.backbone.visual.state_dict())
    data = toy_samcp_batch((1,), (64, 64))  # the first patch is the whole picture
    found = instances(model, data)[0].pred_instances
    inputs = model.data_preprocessor(copy.deepcopy(data))['inputs']
    with torch.no_grad():
        image = library.encode_image(inputs, normalize=True)
    probs = (library.logit_scale.exp() * image @ model.head.text.t()).softmax(dim=-1)[0]
    assert found.masks.all() and len(found) == 2
    assert found.scores.tolist() == pytest.approx(probs[found.labels].tolist(), rel=1e-4)


def test_an_image_is_the_same_in_a_batch(text):
    model = build(text, open_vocabulary=dict())
    data = toy_samcp_batch((7, 4))
    together = instances(model, data)
    for index in range(2):
        alone = {key: values[index : index + 1] for key, values in data.items()}
        found = instances(model, alone)[0].pred_instances
        assert found.scores.tolist() == pytest.approx(
            together[index].pred_instances.scores.tolist(), rel=1e-5
        )


def test_cached_maps_are_seen_too(text):
    plain, kept = (
        build(text, open_vocabulary=dict(), frozen_backbone=True, feature_cache=cache)
        for cache in (None, dict(root=None))
    )
    for model in (plain, kept):
        model._loaded = True  # random weights
        model.head.load_text(CLASSES)
    scores = [instances(m)[0].pred_instances.scores for m in (plain, kept, kept)]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


def test_other_backbones_and_other_texts_are_refused(text):
    with pytest.raises(UserError, match='CLIPConvNeXt.*open_vocabulary=None'):
        MODELS.build(toy_detector(text, open_vocabulary=dict()))
    other = build(text, open_vocabulary=dict())
    other.backbone.projection.data = other.backbone.projection.data[:-1]
    with pytest.raises(UserError, match='11 numbers each, found 12'):
        instances(other)
    with pytest.raises(UserError, match="one CLIP, found model.head.text.clip='ViT-B-32'"):
        build(dict(clip='ViT-B-32'), open_vocabulary=dict())


# --------------------------------------------------------------- seen and unseen
def test_classes_of_training_are_compared_by_name(text):
    model = build(text, open_vocabulary=dict(kappa=0.0, kappa_unseen=1.0))
    with pytest.raises(UserError, match='seen_classes'):
        instances(model)
    model.trained_with(['Road', 'wind-mill', 'car'])
    assert model._seen().tolist() == [True, False, True, False]
    runner = SimpleNamespace(model=model, _train_loop=None)
    meta = dict(dataset_meta=dict(classes=('person',)))
    FrozenBaseHook().after_load_checkpoint(runner, dict(state_dict={}, meta=meta))
    assert model._seen().tolist() == [False, False, False, True]
    given = build(text, open_vocabulary=dict(kappa_unseen=1.0), seen_classes=['sky'])
    given.trained_with(['road'])
    assert given._seen().tolist() == [False, True, False, False]


def test_a_checkpoint_tells_the_names_that_were_encoded(text):
    model = build(text, open_vocabulary=dict(kappa_unseen=1.0))
    model.load_base()
    runner = SimpleNamespace(model=model, _train_loop=None)
    checkpoint = dict(
        state_dict={},
        meta=dict(dataset_meta=dict(classes=('sky-other-merged', 'auto'))),
        mmprompt=dict(recipe=dict(names=[['sky'], ['auto', 'car']])),
    )
    FrozenBaseHook().after_load_checkpoint(runner, checkpoint)
    assert model._seen().tolist() == [False, True, True, False]
    rows = torch.eye(TEXT_DIM)[:3]
    texts = Texts(rows, torch.tensor([0, 0, 1]), [['heaven', 'Sky'], ['sand']])
    model.set_classes(['heaven', 'sand'], [], texts)
    assert model._seen().tolist() == [True, False]
    assert model.encoded_names == [['heaven', 'Sky'], ['sand']]


def test_kappa_of_unseen_classes_is_their_own(text):
    """At kappa 0 and 1 a seen class has the score of the classifier, an unseen one CLIP's."""
    data = toy_samcp_batch((6,))
    both = build(
        text,
        open_vocabulary=dict(kappa=0.0, kappa_unseen=1.0),
        seen_classes=['car'],
        test_cfg=dict(instance_top_k=99),
    )
    learned, clip = (
        build(text, open_vocabulary=dict(kappa=kappa), test_cfg=dict(instance_top_k=99))
        for kappa in (0.0, 1.0)
    )

    def of(model, name):
        found = instances(model, data)[0].pred_instances
        return found.scores[found.labels == CLASSES.index(name)].tolist()

    assert of(both, 'car') == of(learned, 'car') != of(clip, 'car')
    assert of(both, 'person') == of(clip, 'person') != of(learned, 'person')


def frozen(tmp_path, text, **model):
    weights = tmp_path / 'backbone.safetensors'
    config = toy_detector(text, frozen_backbone=True, **model)
    config.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    torch.manual_seed(0)
    model = MODELS.build(config)
    if not weights.exists():
        from safetensors.torch import save_file

        save_file(dict(model.backbone.state_dict()), weights)
    return model.eval()


def test_a_head_that_was_trained_with_other_classes(text, tmp_path, caplog):
    file = frozen(tmp_path, text).export_files()['head.safetensors']
    assert file.recipe['names'] == [[name] for name in CLASSES]
    path = file.save(tmp_path / 'head.safetensors')
    rows = tmp_path / 'five.npy'
    np.save(rows, np.random.default_rng(0).normal(size=(5, TEXT_DIM)).astype(np.float32))
    other = frozen(
        tmp_path,
        str(rows),
        classes=('kite', 'Car', 'sand', 'person', 'sky'),
        head=dict(num_classes=5, thing_classes=(0, 1, 3)),
    )
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            other.load_prompt(path)
    finally:
        logger.removeHandler(caplog.handler)
    told = [r.getMessage() for r in caplog.records if 'head.safetensors' in r.getMessage()]
    assert len(told) == 1 and '4 classes; 3 of the 5' in told[0]
    assert other._trained_with == CLASSES
    found = instances(other)[0]
    assert int(found.pred_sem_seg.data.max()) < 5 or 255 in found.pred_sem_seg.data


def test_another_label_space_of_a_built_model(text):
    model = build(text)
    rows = torch.randn(3, TEXT_DIM, generator=torch.Generator().manual_seed(0))
    model.set_classes(['kite', 'sand'], [0], Texts(rows, torch.tensor([0, 0, 1])))
    assert model.classes == ('kite', 'sand') and model.head.thing_classes.tolist() == [0]
    found = instances(model)[0]
    assert set(found.pred_instances.labels.tolist()) <= {0}
    with pytest.raises(ValueError, match='3 classes, found 2'):
        model.set_classes(['a', 'b', 'c'], [0], Texts(rows, torch.tensor([0, 0, 1])))


# -------------------------------------------------------------------------- docs
def rows_of_tables() -> list[tuple[str, str]]:
    """What docs/samcp.md says of Tables 6 and 8: row and option."""
    table = (ROOT / 'docs/samcp.md').read_text().split('<!-- begin open vocabulary -->')[1]
    lines = table.split('<!-- end')[0].splitlines()
    cells = [line.strip('| ').split(' | ') for line in lines if '=' in line]
    return [(row[1], row[-1].strip(' |`')) for row in cells]


def test_tables_6_and_8_are_options_of_a_test():
    parser, found = argparse.ArgumentParser(), {}
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    for row, option in rows_of_tables():
        cfg = Config.fromfile(ROOT / 'configs/samcp/samcp_clip-convnext-l_coco-to-ade20k.py')
        apply_options(cfg, parser.parse_args(['--cfg-options', option]).cfg_options)
        found[row] = TASK_UTILS.build(cfg.model.open_vocabulary)
    kappas = {
        row: scores.kappa
        for row, scores in found.items()
        if 'sum' not in row and 'unseen' not in row
    }
    assert sorted(kappas.values()) == [0, 0.3, 0.4, 0.5, 0.8, 1]
    assert all(f'kappa {kappa:g}' in row for row, kappa in kappas.items())
    assert [scores.combine for row, scores in found.items() if 'sum' in row] == ['sum']
    assert [scores.kappa_unseen for row, scores in found.items() if 'unseen' in row] == [0.8]
