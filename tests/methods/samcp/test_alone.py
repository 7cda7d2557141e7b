"""Scores of single patches against a model that is given nothing else."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData
from toy_samcp import (
    CLASSES,
    THINGS,
    stir_affinity,
    toy_detector,
    toy_samcp_batch,
    toy_sample,
    write_text,
)

from mmprompt.methods.samcp.alone import AT_ONCE, ScoreKeeper, scores_alone
from mmprompt.registry import MODELS


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(toy_detector(write_text(tmp_path / 'text.npy'))).eval()
    stir_affinity(model.head)
    model.load_base()
    return model


def one(patches):
    return toy_samcp_batch((patches,))


def with_patch(batch, row):
    sample = copy.deepcopy(batch['data_samples'][0])
    sample.patches = InstanceData(**{k: v[row : row + 1] for k, v in sample.patches.items()})
    return dict(inputs=batch['inputs'], data_samples=[sample])


def test_each_patch_is_scored_as_if_it_were_the_only_one(model):
    batch = one(AT_ONCE + 3)
    rows = torch.tensor([18, 2, 5, *range(15)])
    found = scores_alone(model, copy.deepcopy(batch), rows)
    assert found.shape == (len(rows), len(CLASSES))
    model.predictor.instance_top_k = 99
    for row, scores in zip(rows.tolist(), found):
        alone = model.test_step(with_patch(batch, row))[0].pred_instances
        assert scores[list(THINGS)].tolist() == pytest.approx(
            [float(alone.scores[alone.labels == thing]) for thing in THINGS], abs=1e-6
        )
        assert scores[[0, 1]].tolist() == [0, 0]
    assert len(scores_alone(model, one(3), torch.tensor([], dtype=torch.long))) == 0
    # Alone it is another score than among the others.
    keeper = ScoreKeeper(model.predictor)
    model.predictor = keeper
    model.test_step(batch)
    together = keeper.scores[0].instance[rows]
    assert (together - found[:, list(THINGS)]).abs().max() > 1e-3


def test_a_keeper_changes_no_result(model):
    batch = toy_samcp_batch((7, 4))
    plain = model.test_step(copy.deepcopy(batch))
    model.predictor = keeper = ScoreKeeper(model.predictor)
    kept = model.test_step(batch)
    assert keeper.mask_rule == 'min-max'
    assert [len(scores.instance) for scores in keeper.scores] == [7, 4]
    for a, b in zip(plain, kept):
        assert torch.equal(a.pred_panoptic_seg.data, b.pred_panoptic_seg.data)
        assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)


def test_members_are_the_patches_of_which_a_mask_is_the_union(model):
    found = model.test_step(one(9))[0].pred_instances
    masks = toy_sample(9).patch_set.decode()
    assert found.members.shape == (len(found.masks), 9) and len(found.masks) > 3
    for mask, members in zip(found.masks.numpy(), found.members.numpy()):
        assert (masks[members].any(0) == mask).all()
