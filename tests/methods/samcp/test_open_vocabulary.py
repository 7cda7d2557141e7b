"""S_ov in closed form, and against loops over decoded masks, pixels and entries."""

import argparse
import copy
import logging
import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_clip  # noqa: F401, registers ToyCLIP
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample
from samcp_cases import random_output
from toy_samcp import CLASSES, TEXT_DIM, toy_detector, toy_samcp_batch, write_text

from mmprompt.apis.cli import OptionsAction, apply_options
from mmprompt.common.errors import UserError
from mmprompt.common.hooks import FrozenBaseHook
from mmprompt.common.patches import PatchSet
from mmprompt.common.texts import Texts
from mmprompt.methods.samcp import canvas as canvas_module
from mmprompt.methods.samcp.canvas import Canvas
from mmprompt.methods.samcp.open_vocabulary import (
    CLIPView,
    OpenVocabularyScores,
    check_view,
    clip_scores,
    fuse,
)
from mmprompt.methods.samcp.predict import SAMCPPredictor, read_scores
from mmprompt.registry import MODELS, TASK_UTILS

ROOT = Path(__file__).resolve().parents[3]
SIZE, RESIZED, PADDED = (9, 13), (30, 44), (32, 64)
NUM_CLASSES, THINGS = 5, [1, 3, 4]
CLASS_OF = [0, 0, 1, 2, 2, 2, 3, 4]


# ------------------------------------------------------------------ closed form
LEARNED, CLIP = 0.81, 0.25


@pytest.mark.parametrize(
    ('kappa', 'combine', 'wanted'),
    [
        (0.0, 'geometric', LEARNED),
        (0.5, 'geometric', 0.45),  # sqrt(0.81 * 0.25)
        (0.4, 'geometric', math.exp(0.6 * math.log(LEARNED) + 0.4 * math.log(CLIP))),
        (1.0, 'geometric', CLIP),
        (0.5, 'sum', 0.9 + 0.5),
        (0.4, 'sum', math.exp(0.6 * math.log(LEARNED)) + math.exp(0.4 * math.log(CLIP))),
        (0.0, 'sum', LEARNED + 1),  # x^0 = 1
        (1.0, 'sum', 1 + CLIP),
    ],
)
def test_the_equation(kappa, combine, wanted):
    learned, clip = (torch.tensor([x], dtype=torch.float64) for x in (LEARNED, CLIP))
    assert fuse(learned, clip, kappa, combine).item() == pytest.approx(wanted, rel=1e-12)
    of_class = torch.tensor([kappa], dtype=torch.float64)
    assert fuse(learned, clip, of_class, combine).item() == pytest.approx(wanted, rel=1e-12)


def test_at_the_ends_one_classifier_is_alone_whatever_the_other_says():
    draw = torch.rand(2, 1000)
    learned, clip = draw[0], draw[1] * (draw[1] > 0.5)  # zeros among them
    assert torch.equal(fuse(learned, clip, 0.0), learned)
    assert torch.equal(fuse(clip, learned, 1.0), learned)


def test_the_best_entry_of_a_class_counts():
    image = torch.tensor([[1.0, 0.0]])
    entries = torch.tensor([[0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    scores = clip_scores(image, entries, torch.tensor([0, 0, 1]), 10.0)
    # of class 0 the similarities 0 and 0.6, of class 1 0.8
    assert scores[0, 1].item() == pytest.approx(1 / (1 + math.exp(-2.0)))


# ------------------------------------------------------------------ brute force
def random_patches(seed: int, count: int) -> PatchSet:
    rng = np.random.default_rng(seed)
    masks = rng.random((count, *SIZE)) < 0.3
    masks[:, 0, 0] = True
    return PatchSet.from_masks(masks)


def random_view(seed: int) -> CLIPView:
    draw = torch.Generator().manual_seed(seed)
    return CLIPView(torch.randn(6, 4, 8, generator=draw, dtype=torch.float64), PADDED, RESIZED)


class Projection:
    """Of 6 channels to 4."""

    logit_scale = 7.0
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def embed(self, pooled):
        rows = pooled @ self.weight
        return rows / rows.norm(dim=1, keepdim=True)


def unit_rows(seed: int, count: int) -> torch.Tensor:
    rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double()
    return rows / rows.norm(dim=1, keepdim=True)


def cell(pixel: int, axis: int) -> int:
    """Where the centre of a pixel lies on the map."""
    middle = (Fraction(pixel) + Fraction(1, 2)) * RESIZED[axis] / SIZE[axis]
    return int(middle * (4, 8)[axis] / PADDED[axis])


def softmax_of_mask(mask: np.ndarray, view: CLIPView, entries: torch.Tensor) -> list[float]:
    """Of each class, number by number."""
    vectors = [view.map[:, cell(y, 0), cell(x, 1)] for y, x in np.argwhere(mask)]
    image = Projection().embed(torch.stack(vectors).mean(dim=0)[None])[0]
    logits = [-math.inf] * NUM_CLASSES
    for entry, label in zip(entries, CLASS_OF):
        logits[label] = max(logits[label], 7.0 * float(image @ entry))
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def brute(learned, affinity, label_of, options, predictor, patches, view, entries, seen):
    """Scores (R, J) of queries for the classes `label_of(row)`."""
    masks, found = patches.decode(), []
    for row, scores in enumerate(learned.tolist()):
        probs = affinity[row].sigmoid().tolist()
        if predictor.mask_rule == 'min-max':
            probs = [(p - min(probs)) / (max(probs) - min(probs)) for p in probs]
        chosen = [mask for p, mask in zip(probs, masks) if p > predictor.mask_threshold]
        found.append(list(scores))
        if not chosen:
            continue
        clip = softmax_of_mask(np.any(chosen, axis=0), view, entries)
        for place, label in enumerate(label_of(row)):
            kappa = options.get('kappa', 0.4)
            if not seen[label]:
                kappa = options.get('kappa_unseen', kappa)
            one, two = scores[place] ** (1 - kappa), clip[label] ** kappa
            found[-1][place] = one + two if options.get('combine') == 'sum' else one * two
    return found


@pytest.mark.parametrize(
    'options',
    [dict(), dict(kappa=0.7, kappa_unseen=0.2), dict(combine='sum'), dict(kappa=1.0)],
    ids=str,
)
@pytest.mark.parametrize('rule', ['min-max', 'threshold'])
@pytest.mark.parametrize('at_a_time', [2**24, 1])
def test_scores_are_those_of_brute_force(options, rule, at_a_time, monkeypatch):
    monkeypatch.setattr(canvas_module, 'AT_A_TIME', at_a_time)
    predictor = SAMCPPredictor(mask_rule=rule, mask_threshold=0.9)
    patches, view, entries = random_patches(0, 6), random_view(2), unit_rows(3, len(CLASS_OF))
    scores = read_scores(
        random_output(torch.Generator().manual_seed(1), [6], NUM_CLASSES, THINGS), 0
    )
    seen = torch.tensor([True, False, True, True, False])
    found = TASK_UTILS.build(dict(type='OpenVocabularyScores', **options))(
        scores,
        Canvas(patches, torch.device('cpu')),
        predictor.merged,
        view,
        Projection(),
        (entries, torch.tensor(CLASS_OF)),
        seen,
    )
    known = (options, predictor, patches, view, entries, seen.tolist())
    semantic = brute(scores.semantic[:, None], scores.affinity_semantic, lambda row: [row], *known)
    instance = brute(scores.instance, scores.affinity_instance, lambda row: THINGS, *known)
    assert found.semantic.tolist() == pytest.approx([row[0] for row in semantic], rel=1e-6)
    for mine, wanted in zip(found.instance.tolist(), instance):
        assert mine == pytest.approx(wanted, rel=1e-6)
    empty = (~predictor.merged(scores.affinity_instance).any(dim=1)).tolist()
    assert any(empty) == (rule == 'threshold')
    for row, none in enumerate(empty):
        assert torch.equal(found.instance[row], scores.instance[row]) == none
    assert found.affinity_instance is scores.affinity_instance


def test_no_patches_keep_the_learned_scores():
    scores = read_scores(
        random_output(torch.Generator().manual_seed(1), [0], NUM_CLASSES, THINGS), 0
    )
    found = OpenVocabularyScores()(
        scores,
        Canvas(random_patches(0, 3).select([]), torch.device('cpu')),
        SAMCPPredictor().merged,
        random_view(0),
        Projection(),
        (unit_rows(3, len(CLASS_OF)), torch.tensor(CLASS_OF)),
        torch.ones(NUM_CLASSES, dtype=torch.bool),
    )
    assert torch.equal(found.semantic, scores.semantic) and found.instance.shape == (0, 3)


@pytest.mark.parametrize(
    ('given', 'named'),
    [
        (dict(kappa=1.5), 'kappa: expected'),
        (dict(kappa_unseen=-1), 'kappa_unseen'),
        (dict(combine='mean'), 'combine'),
        (dict(temperature=0), 'temperature'),
    ],
)
def test_refuses_other_numbers_and_words(given, named):
    with pytest.raises(ValueError, match=named):
        OpenVocabularyScores(**given)


# -------------------------------------------------------------- where patches lie
def view_of(boxes, size=(18, 26)) -> tuple[SegDataSample, CLIPView]:
    masks = np.zeros((2, *SIZE), dtype=bool)
    masks[0, 2:5, 1:4] = masks[1, 6:8, 5:12] = True
    sample = SegDataSample()
    sample.set_data(
        dict(patches=InstanceData(bboxes=torch.tensor(boxes), ids=torch.tensor([1, 0])))
    )
    sample.set_field(PatchSet.from_masks(masks), 'patch_set')
    return sample, CLIPView(torch.zeros(1, 1, 1), (32, 32), size)


def test_an_input_is_its_original_resized():
    check_view(*view_of([[10.0, 12.0, 24.0, 16.0], [2.0, 4.0, 8.0, 10.0]]))
    flipped = [[2.0, 12.0, 16.0, 16.0], [18.0, 4.0, 24.0, 10.0]]
    with pytest.raises(UserError, match='flips and crops'):
        check_view(*view_of(flipped))
    cut = [[6.0, 12.0, 20.0, 16.0], [0.0, 4.0, 4.0, 10.0]]  # 4 pixels at the left
    with pytest.raises(UserError, match='with patch 0 at'):
        check_view(*view_of(cut, (18, 22)))


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
    path = (
        frozen(tmp_path, text)
        .export_files()['head.safetensors']
        .save(tmp_path / 'head.safetensors')
    )
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
