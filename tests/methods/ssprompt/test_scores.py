"""Scores of labels alone, against all scores of all pixels."""

import pytest
import torch

from mmprompt.common.mask_merge import semantic_scores
from mmprompt.methods.ssprompt.losses import SSPromptSemanticLoss
from mmprompt.methods.ssprompt.scores import scores_of_labels, scores_of_pixels, scores_then_size
from mmprompt.methods.ssprompt.tasks import SemanticTask

B, Q, C, CELLS, SIZE = 2, 7, 37, (8, 11), (29, 43)


@pytest.fixture
def prediction():
    torch.manual_seed(0)
    logits = (3 * torch.randn(B, Q, C + 1, dtype=torch.double)).requires_grad_()
    masks = (3 * torch.randn(B, Q, *CELLS, dtype=torch.double)).requires_grad_()
    return logits, masks


@pytest.mark.parametrize('align_corners', [False, True])
def test_equal_to_all_scores_of_all_pixels(prediction, align_corners):
    label = torch.randint(C, (B, *SIZE))
    scores = scores_of_pixels(*prediction, SIZE, scores_then_size, align_corners)
    found = scores_of_labels(*prediction, label, align_corners)
    torch.testing.assert_close(found.chosen, scores.gather(1, label[:, None])[:, 0])
    torch.testing.assert_close(found.total, scores.sum(dim=1))
    torch.testing.assert_close(found.best, scores.amax(dim=1).detach())
    assert not found.best.requires_grad
    with pytest.raises(ValueError, match='stride 4'):
        scores_of_labels(*prediction, label.new_zeros(B, 33, 43), align_corners)


@pytest.mark.parametrize('sizes', [[SIZE, SIZE], [SIZE, (32, 9)]], ids=['equal', 'unequal'])
def test_loss_accuracy_and_gradient_of_the_label_alone(prediction, sizes):
    """Against the same task that looks at every score; what an image was padded with is ignored."""
    logits, masks = prediction
    label = torch.randint(C, (B, 1, 32, 44))
    with torch.no_grad():  # some pixels are right
        best = torch.nn.functional.interpolate(semantic_scores(*prediction), size=(32, 44))
        label = torch.where(torch.rand(B, 1, 32, 44) < 0.5, best.argmax(1, keepdim=True), label)
    label[:, :, :3] = 255
    samples = [type('Sample', (), dict(gt_sem_seg=type('Map', (), dict(data=x)))) for x in label]
    output = type('Output', (), dict(pred_logits=logits, pred_masks=masks))
    task = SemanticTask(SSPromptSemanticLoss(loss_weight=0.5), C, scores_then_size, False)
    found = task.losses(lambda features: output, [(None, sizes)], samples)
    gradients = torch.autograd.grad(found['loss_sem'], prediction)

    whole = SemanticTask(task.loss, C, lambda *args: scores_then_size(*args), False)
    wanted = whole.losses(lambda features: output, [(None, sizes)], samples)
    torch.testing.assert_close(found, wanted)
    assert 0 < wanted['acc_seg'] < 100
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted['loss_sem'], prediction))


def test_a_batch_without_labels_has_a_loss_of_zero(prediction):
    logits, masks = prediction
    output = type('Output', (), dict(pred_logits=logits, pred_masks=masks))
    label = torch.full((1, 32, 44), 255)
    sample = type('Sample', (), dict(gt_sem_seg=type('Map', (), dict(data=label))))
    task = SemanticTask(SSPromptSemanticLoss(), C, scores_then_size, False)
    found = task.losses(lambda features: output, [(None, [(32, 44)] * B)], [sample] * B)
    assert found['loss_sem'] == 0 and found['loss_sem'].requires_grad and found['acc_seg'] == 0
