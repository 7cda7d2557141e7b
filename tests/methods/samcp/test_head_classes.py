"""The label space of a head: classes with several names, other classes than it was built with."""

import pytest
import torch
from toy_samcp import TEXT_DIM, stir_affinity, toy_features, toy_head, toy_sample

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp.head import batch_of
from mmprompt.methods.samcp.text import Texts
from mmprompt.registry import MODELS


def build(**head):
    torch.manual_seed(0)
    model = MODELS.build(toy_head(**head)).double()
    model.set_text(torch.randn(model.num_classes, TEXT_DIM))
    stir_affinity(model)
    return model


def forward(model):
    features, sample = toy_features(dtype=torch.float64), toy_sample(6)
    return model(features, batch_of([sample], features))


def test_a_class_may_have_several_names():
    """Its score is that of the best; the semantic query starts from their mean."""
    entries, class_of = torch.randn(7, TEXT_DIM).double(), torch.tensor([0, 1, 1, 2, 2, 2, 3])
    model = build(thing_classes=(3, 2))
    model.set_text(Texts(entries, class_of))
    assert torch.equal(model.text, Texts(entries, class_of).mean)
    found = forward(model)
    single = build()
    single.set_classes(entries, [6, 3, 4, 5])  # each name a class, those of things
    names = forward(single).instance_logits
    expected = torch.stack([names[..., 0], names[..., 1:].amax(dim=-1)], dim=-1)
    assert torch.allclose(found.instance_logits, expected, atol=1e-10)
    alone = build(thing_classes=(3, 2))
    alone.set_text(model.text)
    assert torch.allclose(forward(alone).affinity_semantic, found.affinity_semantic, atol=1e-10)


def test_a_built_head_takes_other_classes():
    """As one that was built with them, on the same weights."""
    texts = torch.randn(6, TEXT_DIM).double()
    model, other = build(), build(num_classes=6, thing_classes=(5, 0, 1))
    own = other.denoising.content.weight.detach().clone()
    state = model.state_dict()
    assert not other.load_state_dict(state).missing_keys
    assert torch.equal(other.denoising.content.weight, own)
    assert len(state['denoising.content.weight']) == 2  # nothing of the caller's is changed
    other.set_text(texts)
    model.set_classes(texts, (5, 0, 1))
    assert model.num_classes == 6
    for name in ('thing_classes', 'semantic_classes', 'columns', 'text'):
        assert torch.equal(getattr(model, name), getattr(other, name)), name
    found, expected = forward(model), forward(other)
    for name in ('semantic_logits', 'instance_logits', 'affinity_semantic', 'affinity_instance'):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-10), name
    assert set(model.state_dict()) == set(state)
    with pytest.raises(UserError, match='2 thing classes that it was built with, found 3'):
        model.loss(toy_features(dtype=torch.float64), [toy_sample(6)])


@pytest.mark.parametrize(
    ('classes', 'things'), [(0, ()), (1, ()), (1, (0,)), (3, ()), (3, range(3))]
)
@pytest.mark.parametrize('asked', ['all', 'stuff'])
def test_few_classes_and_only_things_or_stuff(classes, things, asked):
    model = build(semantic_classes=asked)
    model.set_classes(torch.randn(classes, TEXT_DIM).double(), things)
    found = forward(model)
    asked_for = classes if asked == 'all' else classes - len(things)
    assert found.semantic_logits.shape[2:] == (asked_for,)
    assert found.instance_logits.shape[2:] == (6, len(things))
    for logits in (found.semantic_logits, found.instance_logits, found.affinity_instance):
        assert torch.isfinite(logits).all()


def test_texts_of_other_classes_are_refused():
    model = build()
    with pytest.raises(ValueError, match='4 classes, found 3'):
        model.set_text(torch.randn(3, TEXT_DIM))
    with pytest.raises(ValueError, match='thing_classes'):
        model.set_classes(torch.randn(3, TEXT_DIM), (3,))
