"""Eq. 1 and 2 against plain loops in float64, whatever is padded or missing."""

import math
from dataclasses import replace

import pytest
import torch
from mmengine.structures import InstanceData
from samcp_cases import IMAGE, batch_of, leaves
from samcp_loops import OPTIONS, RULES, Looped, gradients
from torch import Tensor

from mmprompt.methods.samcp.losses import SAMCPLoss
from mmprompt.methods.samcp.targets import SAMCPPartAssigner
from mmprompt.registry import MODELS

SIZES = [(8, 6), (0, 3), (10, 2), (6, 0), (4, 7)]  # more units than patches, none of one, of both


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('semantic', [None, [0, 2]], ids=['all', 'stuff'])
def test_losses_and_gradients_are_those_of_loops(options, semantic):
    output, samples = batch_of(0, SIZES, denoising=6, semantic=semantic)
    loss = SAMCPLoss(part_assigner=RULES, **options)
    found, want = loss(output, samples), Looped(loss, output, samples).losses()
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-12), key
    assert all(value.item() > 0 for value in found.values())
    mine, theirs = gradients(found, output), gradients(want, output)
    for name in mine:
        assert torch.allclose(mine[name], theirs[name], rtol=1e-8, atol=1e-12), name
        assert mine[name].any(), name


def test_numbers_by_hand():
    """Two patches, one thing of both: no noise, every term on paper."""
    output, samples = batch_of(0, [(2, 2)], classes=2, things=[1], layers=1)
    samples[0].gt_units = InstanceData(
        labels=torch.tensor([1, 1]),
        is_instance=torch.tensor([True, False]),
        bboxes=torch.tensor([[0.0, 0, 40, 30]] * 2),
        mask_iop=torch.ones(2, 2),
        box_iop=torch.ones(2, 2),
        box_iou=torch.ones(2, 2),
    )
    output.boxes_instance.zero_()
    with torch.no_grad():
        for tensor in leaves(output).values():
            tensor.zero_()  # every probability is a half
        output.affinity_instance[0, 0, 0, 0] = 1.0  # so that query 0 is the better one
    one, half = 0.25 * 0.5**2 * math.log(2), 0.75 * 0.5**2 * math.log(2)  # FL of target 1 and 0
    p = 1 / (1 + math.exp(-1))
    sure = 0.25 * (1 - p) ** 2 * -math.log(p)
    found = {k: float(v) for k, v in SAMCPLoss(self_affinity=3.0)(output, samples).items()}
    want = dict(
        loss_cls_semantic=2 * (half + one) / 4,  # M = 2 classes + 2 patches
        loss_cls_instance=2 * (one + half) / 4,
        loss_mfl_semantic=(one + one) / 2 / 2,  # M* = 2
        loss_dice_semantic=(1 - (2 * 1.0 + 1) / (1.0 + 2 + 1)) / 2,
        loss_mfl_instance=(sure + one) / 2 / 2,
        loss_dice_instance=(1 - (2 * (p + 0.5) + 1) / (p + 0.5 + 2 + 1)) / 2,
        loss_mfl_self=3 * (one + half),
        loss_dice_self=3 * (1 - (2 * 0.5 + 1) / (1.0 + 1 + 1)),
    )
    assert found == pytest.approx(want)


@pytest.mark.parametrize('rubbish', [0.0, 37.0, -1e4])
def test_padding_never_leaks(rubbish):
    """More padding, whatever is in it, changes nothing and gets no gradient."""
    output, samples = batch_of(0, SIZES, denoising=6)
    loss = SAMCPLoss(part_assigner=RULES)
    plain = loss(output, samples)
    extra = 4

    def padded(x: Tensor, *sides: int) -> Tensor:
        pad = [p for s in reversed(range(x.dim())) for p in (0, extra * (s in sides))]
        return torch.nn.functional.pad(x.detach(), pad, value=rubbish)

    noisy = output.denoising
    wide = replace(
        output,
        instance_logits=padded(output.instance_logits, 2),
        affinity_semantic=padded(output.affinity_semantic, 3),
        affinity_instance=padded(output.affinity_instance, 2, 3),
        boxes_instance=padded(output.boxes_instance, 2),
        semantic_logits=output.semantic_logits.detach(),
        boxes=padded(output.boxes, 1),
        valid=torch.nn.functional.pad(output.valid, (0, extra)),
        denoising=replace(
            noisy,
            logits=padded(noisy.logits, 2),
            affinity=padded(noisy.affinity, 2, 3),
            units=torch.nn.functional.pad(noisy.units, (0, extra)),
            positive=torch.nn.functional.pad(noisy.positive, (0, extra), value=True),
            valid=torch.nn.functional.pad(noisy.valid, (0, extra)),
        ),
    )
    tensors = {n: t for n, t in vars(wide).items() if torch.is_tensor(t)}
    tensors |= {n: t for n, t in vars(wide.denoising).items()}
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.dim() > 2:
            tensor.requires_grad_()
    found = loss(wide, samples)
    for key in plain:
        assert float(found[key].detach()) == pytest.approx(float(plain[key].detach()), rel=1e-12), (
            key
        )
    mine, theirs = gradients(found, wide), gradients(plain, output)
    for name, gradient in theirs.items():
        inner = tuple(slice(side) for side in gradient.shape)
        assert torch.allclose(mine[name][inner], gradient, rtol=1e-10, atol=1e-14), name
        rest = mine[name].clone()
        rest[inner] = 0
        assert not rest.any(), name


@pytest.mark.parametrize(
    'sizes', [[(0, 0)], [(0, 3)], [(6, 0)], [(6, 1)], [(0, 0), (0, 2)]], ids=str
)
def test_nothing_to_learn_from_is_no_error(sizes):
    output, samples = batch_of(0, sizes)
    values = SAMCPLoss()(output, samples)
    assert all(value.isfinite() for value in values.values())
    for name, gradient in gradients(values, output).items():
        assert gradient.isfinite().all(), name
    assert not any(float(v) for k, v in values.items() if 'mfl_self' in k) or sizes[-1][1]


def test_all_patches_in_one_object_and_objects_without_patches():
    output, samples = batch_of(0, [(6, 4)])
    for overlap, kinds in ((1.0, {'learned'}), (0.0, {'ignored'})):
        units = samples[0].gt_units
        for name in ('mask_iop', 'box_iop', 'box_iou'):
            units[name] = torch.full((6, 4), overlap)
        values = SAMCPLoss()(output, samples)
        assert all(value.isfinite() for value in values.values())
        learned = float(values['loss_mfl_instance']) > 0
        assert {'learned' if learned else 'ignored'} == kinds


def test_hundreds_of_negatives_do_not_drown_the_positives():
    """The mean over unmatched queries stays what it is when there are more of the same."""
    values = []
    for patches in (10, 100):
        output, samples = batch_of(0, [(2, patches)], layers=1)
        with torch.no_grad():
            output.affinity_instance.fill_(-9.0).diagonal(dim1=-2, dim2=-1).fill_(1.0)
        values.append(float(SAMCPLoss()(output, samples)['loss_mfl_self'].detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_what_weighs_nothing_is_left_out():
    """Table 3: no mask focal, no Dice loss; Table 4: no self-affinity."""
    output, samples = batch_of(0, SIZES, denoising=6)
    names = {k.split('_')[1] for k in SAMCPLoss(mfl_weight=0.0)(output, samples)}
    assert names == {'cls', 'dice'}
    names = {k.split('_')[1] for k in SAMCPLoss(dice_weight=0.0)(output, samples)}
    assert names == {'cls', 'mfl'}
    names = {k.split('_')[2] for k in SAMCPLoss(self_affinity=0.0)(output, samples)}
    assert names == {'semantic', 'instance', 'denoising'}
    names = {k.split('_')[2] for k in SAMCPLoss(denoising_weight=0.0)(output, samples)}
    assert names == {'semantic', 'instance', 'self'}
    last = SAMCPLoss(aux_weight=0.0)(output, samples)
    every = SAMCPLoss()(output, samples)
    assert last == {k: v for k, v in every.items() if '.' not in k}
    assert len(every) == 3 * len(last)


def test_what_the_layers_share_is_made_once(monkeypatch):
    output, samples = batch_of(0, SIZES, layers=6)
    calls = []
    plain = SAMCPPartAssigner.__call__
    monkeypatch.setattr(
        SAMCPPartAssigner, '__call__', lambda *a: calls.append(a[1].shape) or plain(*a)
    )
    SAMCPLoss()(output, samples)
    assert calls == [(5, 10, 7)]  # all images at once


def test_half_precision_is_computed_in_single():
    output, samples = batch_of(0, SIZES, denoising=6, dtype=torch.bfloat16)
    wide = replace(output, **{n: v.float() for n, v in leaves(output).items() if '.' not in n})
    wide.denoising = replace(
        output.denoising,
        logits=output.denoising.logits.float(),
        affinity=output.denoising.affinity.float(),
    )
    wide.boxes, wide.boxes_instance = output.boxes.float(), output.boxes_instance.float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = SAMCPLoss()(output, samples)
    want = SAMCPLoss()(wide, samples)
    for key in want:
        assert found[key].dtype == torch.float32
        assert float(found[key].detach()) == pytest.approx(float(want[key].detach()), rel=1e-5), key
    assert all(g.isfinite().all() for g in gradients(found, output).values())


def test_logits_of_no_probability_have_finite_losses():
    output, samples = batch_of(0, SIZES, denoising=6, dtype=torch.float32)
    for value in (-1e4, -90.0, 90.0, 1e4):
        with torch.no_grad():
            for tensor in leaves(output).values():
                tensor.fill_(value)
        values = SAMCPLoss()(output, samples)
        assert all(v.isfinite() for v in values.values())
        assert all(g.isfinite().all() for g in gradients(values, output).values())


def test_it_builds_by_name_and_refuses_other_words():
    loss = MODELS.build(
        dict(
            type='SAMCPLoss',
            part_assigner=dict(tau=0.9),
            semantic_assigner=dict(type='SAMCPPartAssigner', low_quality=None),
            assigner=dict(mfl=None),
        )
    )
    assert loss.part_assigner.tau == 0.9 and loss.semantic_assigner.low_quality is None
    assert len(loss.assigner.costs) == 4 and not list(loss.parameters())
    for name in ('cls_normaliser', 'mask_normaliser', 'empty_units', 'empty_classes'):
        with pytest.raises(ValueError, match=f'{name}: expected one of'):
            SAMCPLoss(**{name: 'none'})


def test_the_published_weights_are_the_defaults():
    loss = SAMCPLoss()
    assert loss.weights == dict(cls=2.0, mfl=1.0, dice=1.0)
    assert [cost.weight for cost in loss.assigner.costs] == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert loss.part_assigner.tau == 0.8 and loss.part_assigner.low_quality == 'paper'
    assert IMAGE[0] != IMAGE[1]  # else height and width could be swapped unseen
