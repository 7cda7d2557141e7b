"""The cross-entropy of a resized map, against resizing it and asking MMSegmentation."""

import pytest
import torch
from mmseg.models import CrossEntropyLoss
from torch.nn import functional as F

from mmprompt.methods.spm import resized_loss as module
from mmprompt.methods.spm.resized_loss import is_plain, resized_loss

#: Small map -> labels: enlarged by whole and other factors, one side alone, made smaller, kept.
SIZES = [((4, 6), (32, 48)), ((5, 3), (33, 40)), ((1, 1), (7, 5)), ((9, 8), (4, 5)), ((6, 6),) * 2]


def data(small, large, dtype=torch.float64, classes=7):
    torch.manual_seed(0)
    logits = (4 * torch.randn(2, classes, *small, dtype=dtype)).requires_grad_()
    labels = torch.randint(classes, (2, *large))
    labels[torch.rand(2, *large) < 0.2] = 255
    return logits, labels


def resized_first(loss, logits, labels):
    large = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=False)
    return loss(large, labels, ignore_index=255)


@pytest.mark.parametrize('settings', [{}, dict(avg_non_ignore=True, loss_weight=0.3)], ids=str)
@pytest.mark.parametrize('small, large', SIZES)
def test_value_and_gradient(small, large, settings, monkeypatch):
    monkeypatch.setitem(module.SCORES, 'cpu', 7 * 48 * 3)  # a few rows at a time
    loss = CrossEntropyLoss(**settings)
    logits, labels = data(small, large)
    expected, found = (f(loss, logits, labels) for f in (resized_first, via_module))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(3 * value, logits)[0] for value in (expected, found)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-10, atol=1e-12)


def via_module(loss, logits, labels):
    return resized_loss(loss, logits, labels, 255)


def test_single_precision_and_large_scores():
    logits, labels = data((8, 8), (64, 64), torch.float32)
    big = (100 * logits.detach()).requires_grad_()  # exp overflows
    loss = CrossEntropyLoss()
    for values in (logits, big):
        expected, found = (f(loss, values, labels) for f in (resized_first, via_module))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        slopes = [torch.autograd.grad(value, values)[0] for value in (expected, found)]
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-7)


def test_labels_that_do_not_count():
    logits, labels = data((4, 4), (16, 16))
    value = via_module(CrossEntropyLoss(avg_non_ignore=True), logits, torch.full_like(labels, 255))
    assert value.item() == 0 and not torch.autograd.grad(value, logits)[0].any()


def test_autocast_keeps_single_precision():
    logits, labels = data((4, 4), (16, 16), torch.float32)
    expected = via_module(CrossEntropyLoss(), logits, labels)
    with torch.autocast('cpu', torch.bfloat16):
        found = via_module(CrossEntropyLoss(), logits, labels)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_nothing_large_is_kept():
    logits, labels = data((8, 8), (128, 128), torch.float32, classes=20)
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = via_module(CrossEntropyLoss(), logits, labels)
    assert 0 < sum(kept) < 2 * logits.numel()  # resized, it would be 256 times as many
    value.backward()


def test_other_losses_get_the_resized_map():
    logits, labels = data((4, 6), (32, 48))
    labels[labels == 255] = 0  # MMSegmentation 1.2 looks its class weight up
    for settings in (dict(class_weight=[1.0, 2, 3, 4, 5, 6, 7]), dict(reduction='sum')):
        loss = CrossEntropyLoss(**settings)
        assert not is_plain(loss)
        assert torch.equal(*(f(loss, logits, labels) for f in (resized_first, via_module)))


def test_unknown_labels_are_refused():
    logits, labels = data((4, 4), (16, 16))
    with pytest.raises((IndexError, RuntimeError)):
        via_module(CrossEntropyLoss(), logits, labels.fill_(9))
