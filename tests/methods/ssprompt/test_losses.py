"""The two readings of "cross-entropy" on semantic scores."""

import pytest
import torch
import torch.nn.functional as F

from mmprompt.methods.ssprompt.losses import SSPromptSemanticLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 5, 4, 6, generator=generator)
    label = torch.randint(5, (2, 4, 6), generator=generator)
    label[0, :2] = 255
    return scores, label


def test_modes_by_hand(batch):
    scores, label = batch
    keep = label != 255
    picked = scores.movedim(1, -1)[keep]  # (pixels, C)
    share = picked.gather(1, label[keep][:, None])[:, 0] / picked.sum(1)
    ce, nll = (SSPromptSemanticLoss(mode)(scores, label) for mode in ('ce', 'nll'))
    torch.testing.assert_close(ce, F.cross_entropy(picked, label[keep]))
    torch.testing.assert_close(nll, -share.log().mean(), atol=1e-4, rtol=0)


def test_weight_and_name(batch):
    loss = SSPromptSemanticLoss(loss_weight=3.0, loss_name='loss_x')
    torch.testing.assert_close(loss(*batch), 3 * SSPromptSemanticLoss()(*batch))
    assert loss.loss_name == 'loss_x'


@pytest.mark.parametrize('mode', ['ce', 'nll'])
def test_nothing_labelled_and_nothing_predicted_stay_finite(mode):
    scores = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = SSPromptSemanticLoss(mode)
    empty = loss(scores, torch.full((1, 2, 2), 255))
    assert empty == 0
    loss(scores, torch.zeros(1, 2, 2, dtype=torch.long)).backward()
    assert scores.grad.isfinite().all()


def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match="'focal'"):
        SSPromptSemanticLoss('focal')
