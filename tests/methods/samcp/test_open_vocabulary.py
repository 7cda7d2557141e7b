"""S_ov in closed form, and against loops over decoded masks, pixels and entries."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample
from samcp_cases import random_output

from mmprompt.common.errors import UserError
from mmprompt.common.patches import PatchSet
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
from mmprompt.registry import TASK_UTILS

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
        (0.5, 'sum', (0.9 + 0.5) / 2),
        (0.4, 'sum', (math.exp(0.6 * math.log(LEARNED)) + math.exp(0.4 * math.log(CLIP))) / 2),
        (0.0, 'sum', (LEARNED + 1) / 2),  # x^0 = 1
        (1.0, 'sum', (1 + CLIP) / 2),
    ],
)
def test_the_equation(kappa, combine, wanted):
    learned, clip = (torch.tensor([x], dtype=torch.float64) for x in (LEARNED, CLIP))
    assert fuse(learned, clip, kappa, combine).item() == pytest.approx(wanted, rel=1e-12)
    assert 0 <= wanted <= 1  # as the thresholds of test_cfg
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
            found[-1][place] = (one + two) / 2 if options.get('combine') == 'sum' else one * two
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
