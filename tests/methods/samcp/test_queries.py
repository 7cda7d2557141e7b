"""Queries: what they are made of, and which may see which."""

import itertools

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import InstanceData

from mmprompt.methods.samcp import queries
from mmprompt.methods.samcp.layers import cxcywh_to_xyxy, sine_boxes, xyxy_to_cxcywh
from mmprompt.methods.samcp.queries import (
    Noised,
    QuerySet,
    SAMCPDenoising,
    SemanticQueries,
    visible_queries,
)
from mmprompt.methods.samcp.structures import PatchFeatures

COLUMNS = torch.tensor([-1, -1, 0, 1])  # classes 2 and 3 are things


def units(labels, is_instance, boxes=None) -> InstanceData:
    count = len(labels)
    if boxes is None:
        boxes = torch.tensor([[10.0, 5, 30, 25]]).repeat(count, 1)
    return InstanceData(
        labels=torch.tensor(labels, dtype=torch.long),
        is_instance=torch.tensor(is_instance, dtype=torch.bool),
        bboxes=boxes,
    )


def test_who_sees_whom():
    """The mask against the rules, pair by pair."""
    group = torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0]])
    valid = torch.tensor([[True, True, False], [True, False, False]])
    kinds = ['noised'] * 4 + ['semantic'] * 2 + ['instance'] * 3
    mask = visible_queries(group, 2, valid)
    assert mask.shape == (2, 9, 9)
    for image, row, column in itertools.product(range(2), range(9), range(9)):
        mine, theirs = kinds[row], kinds[column]
        if row == column:
            expected = True
        elif theirs == 'instance':
            expected = bool(valid[image, column - 6])
        elif theirs == 'semantic':
            expected = mine == 'noised'
        else:
            same = mine == 'noised' and group[image, row] == group[image, column]
            expected = bool(same and group[image, column] >= 0)
        assert bool(mask[image, row, column]) is expected, (image, row, column)


def test_denoising_without_noise_is_the_truth():
    torch.manual_seed(0)
    made = SAMCPDenoising(8, 2, num_queries=9, label_noise=0, box_noise=0)
    boxes = torch.tensor([[0.0, 0, 20, 10], [4, 2, 8, 10], [0, 0, 8, 8], [10, 0, 20, 4]])
    given = units([0, 2, 3, 2], [False, True, True, False], boxes)
    found = made([given], COLUMNS, torch.tensor([[10.0, 20.0]]))
    # Two instances: 9 // 2 groups of 2 positives and 2 negatives each.
    assert found.units[0].tolist() == [1, 2, 1, 2] * 4
    assert found.labels[0].tolist() == [0, 1, 0, 1] * 4
    assert found.positive[0].tolist() == [True, True, False, False] * 4
    assert found.group[0].tolist() == [g for g in range(4) for _ in range(4)]
    expected = boxes[[1, 2, 1, 2] * 4] / torch.tensor([20.0, 10, 20, 10])
    assert torch.allclose(found.boxes[0], expected)


def test_noise_of_boxes():
    """Corners of positives move by less than half of the size, of negatives by up to all of it."""
    torch.manual_seed(0)
    made = SAMCPDenoising(8, 2, num_queries=4000)
    box = torch.tensor([[0.4, 0.5, 0.5, 0.54]])
    found = made.draw(torch.tensor([3]), torch.tensor([0]), box)
    moved = (found.boxes - box).abs() / torch.tensor([0.1, 0.04, 0.1, 0.04])
    positive, negative = moved[found.positive], moved[~found.positive]
    assert len(positive) == len(negative) == 4000
    assert positive.max() < 0.5 and negative.max() < 1 + 1e-5
    assert torch.allclose(positive.mean(0), torch.full((4,), 0.25), atol=0.02)
    ways = (found.boxes > box).float().mean(0)
    assert torch.allclose(ways, torch.full((4,), 0.5), atol=0.03)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    # Corners that passed each other: both went inwards, a quarter of the negatives along each axis.
    passed = (sides == 0)[~found.positive].repeat(1, 2)  # (4000, 4)
    assert torch.allclose(passed.float().mean(0), torch.full((4,), 0.25), atol=0.03)
    assert negative[~passed].min() >= 0.5 - 1e-5
    assert negative[~passed].mean() == pytest.approx(0.75, abs=0.02)
    # The middle of a corner at 0.5 to 1 and one at 0 to 0.5 of the side.
    assert 0.25 - 1e-5 <= negative[passed].min() and negative[passed].max() <= 0.75 + 1e-5


@pytest.mark.parametrize('box_noise', [0.3, 1.0, 2.5])
def test_noised_boxes_are_boxes(box_noise):
    """Also at the border, of boxes without extent and with more noise than DINO's."""
    torch.manual_seed(0)
    made = SAMCPDenoising(8, 2, num_queries=2000, box_noise=box_noise)
    boxes = torch.tensor(
        [[0.0, 0, 1, 1], [0.9, 0.0, 1, 0.1], [0.3, 0.3, 0.3, 0.3], [0.2, 0.1, 0.9, 0.101]]
    )
    given = torch.arange(4), torch.zeros(4, dtype=torch.long)
    found = made.draw(*given, boxes)
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
    assert found.boxes.min() >= 0 and found.boxes.max() <= 1
    truth = boxes[found.units]
    sides = (truth[:, 2:] - truth[:, :2]).repeat(1, 2)
    assert ((found.boxes - truth).abs() <= sides * box_noise + 1e-6).all()
    assert (found.boxes[found.units == 2] == 0.3).all()


def test_a_quarter_of_the_labels_is_drawn_anew():
    torch.manual_seed(0)
    made = SAMCPDenoising(8, 10, num_queries=5000)
    found = made.draw(torch.tensor([0]), torch.tensor([4]), torch.rand(1, 4))
    share = (found.labels != 4).float().mean()
    assert share == pytest.approx(0.25 * 0.9, abs=0.02)  # a tenth of the draws is the same class
    assert set(found.labels.tolist()) == set(range(10))


def test_denoising_of_a_batch():
    """Images with many, few and no instances; padding is of group -1."""
    made = SAMCPDenoising(8, 2, num_queries=4)
    given = [
        units([2] * 7, [True] * 7),
        units([3], [True]),
        units([], []),
        units([0, 1], [True] * 2),
    ]
    found = made(given, COLUMNS, torch.tensor([[50.0, 60.0]] * 4))
    assert (found.group >= 0).sum(1).tolist() == [14, 8, 0, 0]
    assert found.group[0].max() == 0 and found.group[1, :8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.boxes.shape == (4, 14, 4)
    none = made(given[2:], COLUMNS, torch.tensor([[50.0, 60.0]] * 2))
    assert none.group.shape == (2, 0)


def test_noise_is_drawn_from_the_global_generator():
    made, given = SAMCPDenoising(8, 2), [units([2, 3], [True, True])]
    torch.manual_seed(5)
    first = made(given, COLUMNS, torch.tensor([[50.0, 60.0]]))
    other = made(given, COLUMNS, torch.tensor([[50.0, 60.0]]))
    torch.manual_seed(5)
    again = made(given, COLUMNS, torch.tensor([[50.0, 60.0]]))
    assert torch.equal(first.boxes, again.boxes) and not torch.equal(first.boxes, other.boxes)


def seeded(seed: int, labels=(2, 3), boxes=None) -> InstanceData:
    given = units(list(labels), [True] * len(labels), boxes)
    given.set_metainfo(dict(noise_seed=seed))
    return given


def test_noise_is_that_of_the_seed_of_the_units():
    """Alone, at any place of a batch, and whatever torch has drawn before."""
    made, size = SAMCPDenoising(8, 2, num_queries=20), torch.tensor([[50.0, 60.0]])
    torch.manual_seed(5)
    alone = made([seeded(17)], COLUMNS, size)
    others = [seeded(3, [2] * 5), seeded(17), units([3], [True]), seeded(18)]
    torch.manual_seed(6)
    batch = made(others, COLUMNS, size.expand(4, -1))
    count = alone.group.shape[1]
    for name, mine in alone._asdict().items():
        assert torch.equal(getattr(batch, name)[1, :count], mine[0]), name
    assert (batch.group[1, count:] == -1).all()
    # Another seed: other boxes and other labels.
    assert not torch.equal(batch.boxes[3], batch.boxes[1])
    assert not torch.equal(batch.labels[3], batch.labels[1])
    assert torch.equal(batch.units[3], batch.units[1])


def test_a_seed_leaves_the_generator_of_torch_alone():
    made, size = SAMCPDenoising(8, 2), torch.tensor([[50.0, 60.0]])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    made([seeded(17)], COLUMNS, size)
    assert torch.equal(torch.get_rng_state(), state)
    made([units([2], [True])], COLUMNS, size)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_embeddings_of_other_classes_are_left_out(loader, monkeypatch):
    """Of the same number they are taken over; of another width they are refused."""
    told = []
    monkeypatch.setattr(queries, 'print_log', lambda text, **_: told.append(text))
    model = SAMCPDenoising(4, 5)
    before = model.content.weight.detach().clone()

    def load(tensor):
        state = {'content.weight': tensor}
        if loader == 'torch':
            model.load_state_dict(state)
        else:
            load_state_dict(model, state, strict=True)
        return state['content.weight'] is tensor

    assert load(torch.randn(3, 4))
    assert torch.equal(model.content.weight, before)
    assert len(told) == 1 and 'trained for 3 thing classes, the model has 5' in told[0]
    same = torch.randn(5, 4)
    load(same)
    assert torch.equal(model.content.weight, same) and len(told) == 1
    with pytest.raises(RuntimeError, match='size mismatch'):
        load(torch.randn(5, 6))


def test_queries_in_their_order():
    torch.manual_seed(0)
    patches = PatchFeatures(
        torch.randn(2, 3, 8),
        torch.randn(2, 3, 8),
        torch.rand(2, 3, 4),
        torch.tensor([[True, True, True], [True, False, False]]),
    )
    content, boxes = SemanticQueries(5, 8)(torch.randn(4, 5))
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert torch.allclose(content.mean(-1), torch.zeros(4), atol=1e-6)  # normalised
    found = QuerySet.join(
        (content, boxes), patches, Noised.none(patches.boxes), patches.content[:, :0]
    )
    assert found.counts == (0, 4, 3)
    for image in range(2):
        assert torch.equal(found.content[image, :4], content)
        assert torch.equal(found.content[image, 4:], patches.content[image])  # PasQ
        assert torch.equal(found.boxes[image, 4:], patches.boxes[image])
    assert found.valid.tolist() == [[True] * 7, [True] * 5 + [False] * 2]


def test_embedding_of_boxes():
    """Against the formula, number by number."""
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.8]], dtype=torch.float64)
    found = sine_boxes(boxes, 8)[0]
    expected = []
    for value in (0.3, 0.5, 0.4, 0.6):  # centre and size
        for period in (1.0, 10000**0.5):
            angle = torch.tensor(value * 2 * torch.pi / period, dtype=torch.float64)
            expected += [angle.sin(), angle.cos()]
    assert torch.allclose(found, torch.stack(expected), atol=1e-12)
    assert torch.allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
