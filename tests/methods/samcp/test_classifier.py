"""Classification against texts: classes with several names take the best of them."""

import pytest
import torch

from mmprompt.methods.samcp.classifier import SAMCPClassifier, best_of_entries

DIM, TEXT_DIM = 8, 5
KINDS = ('glip', 'cosine', 'range')
#: Four classes with 2, 1, 3 and 1 names.
CLASS_OF = torch.tensor([0, 0, 1, 2, 2, 2, 3])


def classifier(kind):
    torch.manual_seed(0)
    model = SAMCPClassifier(DIM, TEXT_DIM, kind).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize('kind', KINDS)
def test_a_class_is_the_best_of_its_names(kind):
    model = classifier(kind)
    queries, texts = torch.randn(2, 3, DIM).double(), torch.randn(7, TEXT_DIM).double()
    every = model(queries, texts)
    assert every.shape == (2, 3, 7)
    names = [[i for i in range(7) if CLASS_OF[i] == c] for c in range(4)]
    expected = torch.stack([every[..., own].max(dim=-1).values for own in names], dim=-1)
    assert torch.equal(model(queries, texts, CLASS_OF), expected)

    own = model.own(queries[:, [0, 1, 2, 0]], texts, CLASS_OF)
    wanted = torch.stack([expected[:, [0, 1, 2, 0][c], c] for c in range(4)], dim=-1)
    assert torch.allclose(own, wanted, atol=1e-12)


@pytest.mark.parametrize('kind', KINDS)
def test_with_one_name_each_nothing_changes(kind):
    model = classifier(kind)
    queries, texts = torch.randn(2, 4, DIM).double(), torch.randn(4, TEXT_DIM).double()
    alone = torch.arange(4)
    assert torch.equal(model(queries, texts), model(queries, texts, alone))
    assert torch.equal(model.own(queries, texts), model.own(queries, texts, alone))


def test_the_best_name_alone_learns():
    logits = torch.tensor([[1.0, 3.0, -2.0, 0.5, 0.25, -9.0, 7.0]], requires_grad=True)
    best = best_of_entries(logits, CLASS_OF)
    assert best.tolist() == [[3.0, -2.0, 0.5, 7.0]]
    best.sum().backward()
    assert logits.grad.tolist() == [[0, 1, 1, 1, 0, 0, 1]]


def test_no_class_at_all():
    model, none = classifier('glip'), torch.zeros(0, dtype=torch.long)
    queries, texts = torch.randn(2, 3, DIM).double(), torch.zeros(0, TEXT_DIM).double()
    assert model(queries, texts, none).shape == (2, 3, 0)
    assert model.own(queries[:, :0], texts, none).shape == (2, 0)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match='kind'):
        SAMCPClassifier(DIM, TEXT_DIM, 'dot')
