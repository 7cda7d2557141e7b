"""The matching matrix G and its rows for each kind of query, against loops."""

import itertools

import pytest
import torch
from mmengine.structures import InstanceData
from samcp_cases import IMAGE, batch_of

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp.targets import SAMCPPartAssigner, build_targets
from mmprompt.registry import TASK_UTILS


def looped(units: InstanceData, tau, low_quality, iou, band, use_box, use_mask) -> torch.Tensor:
    """Section 3.2.3, patch by patch."""
    rows = []
    for k in range(len(units.labels)):
        row = []
        for n in range(units.mask_iop.shape[1]):
            values = [float(units.mask_iop[k, n])] * use_mask + [
                float(units.box_iop[k, n])
            ] * use_box
            row.append(1 if min(values) > tau else -1 if band and min(values) >= band else 0)
        ious = units.box_iou[k].tolist()
        if low_quality == 'paper' and 1 not in row:
            row = [1 if u >= iou else v for u, v in zip(ious, row)]
        if low_quality == 'code':
            best = max([u for u, v in zip(ious, row) if v == 1], default=0)
            row = [1 if u > iou and u > best else v for u, v in zip(ious, row)]
        rows.append(row)
    return torch.tensor(rows)


CHOICES = list(
    itertools.product((0.9, 0.5), ('paper', 'code', None), (None, 0.4), ((1, 1), (1, 0), (0, 1)))
)


@pytest.mark.parametrize('choice', CHOICES, ids=str)
def test_the_assigner_is_the_loop(choice):
    tau, low_quality, band, (use_box, use_mask) = choice
    assigner = SAMCPPartAssigner(
        tau,
        low_quality,
        low_quality_iou=0.7,
        ignore_band=band,
        use_box=bool(use_box),
        use_mask=bool(use_mask),
    )
    seen = set()
    for seed in range(3):
        _, (sample,) = batch_of(seed, [(10, 6)])
        units = sample.gt_units
        found = assigner(units.mask_iop, units.box_iop, units.box_iou)
        want = looped(units, tau, low_quality, 0.7, band, use_box, use_mask)
        assert torch.equal(found.long(), want)
        seen |= set(want.unique().tolist())
    assert seen == ({-1, 0, 1} if band else {0, 1})


def one_unit(mask_iop, box_iop, box_iou, **options) -> list[int]:
    rows = [torch.tensor([values]) for values in (mask_iop, box_iop, box_iou)]
    return SAMCPPartAssigner(**options)(*rows)[0].tolist()


def test_both_overlaps_must_be_above_tau():
    assert one_unit([0.81, 0.8, 0.81, 0.9], [0.9, 0.9, 0.8, 0.81], [0.0] * 4) == [1, 0, 0, 1]


def test_low_quality_of_the_paper_helps_only_units_without_any_part():
    assert one_unit([0.9, 0.1, 0.7], [0.9, 0.1, 0.9], [0.1, 0.9, 0.5]) == [1, 0, 0]
    assert one_unit([0.7, 0.1, 0.7], [0.9, 0.1, 0.9], [0.1, 0.9, 0.5]) == [0, 1, 1]
    assert one_unit([0.7], [0.7], [0.49]) == [0]


def test_low_quality_of_the_code_also_betters_what_is_there():
    options = dict(low_quality='code', ignore_band=0.5)
    assert one_unit([0.9, 0.6], [0.9, 0.6], [0.4, 0.6], **options) == [1, 1]
    assert one_unit([0.9, 0.6], [0.9, 0.6], [0.7, 0.6], **options) == [1, -1]


def test_what_is_out_of_range_is_refused():
    for wrong in (
        dict(tau=1.1),
        dict(low_quality='both'),
        dict(low_quality_iou=0.0),
        dict(ignore_band=0.9),
        dict(ignore_band=0.0),
        dict(use_box=False, use_mask=False),
    ):
        with pytest.raises(ValueError, match='expected'):
            SAMCPPartAssigner(**wrong)


def test_it_builds_by_name():
    assert TASK_UTILS.build(dict(type='SAMCPPartAssigner', tau=0.7)).tau == 0.7


@pytest.mark.parametrize('semantic', [[0, 1, 2, 3, 4], [0, 2]])
def test_a_batch_is_its_images(semantic):
    """Rows and columns of all images, whatever they are padded to."""
    output, samples = batch_of(1, [(8, 6), (0, 9), (3, 1), (6, 0)], semantic=semantic)
    assigner = SAMCPPartAssigner(tau=0.6)
    classes = output.thing_classes, output.semantic_classes
    found = build_targets(samples, output.boxes, *classes, assigner)
    things = output.thing_classes.tolist()
    for image, sample in enumerate(samples):
        units = sample.gt_units
        count, patches = units.mask_iop.shape
        parts = assigner(units.mask_iop, units.box_iop, units.box_iou)
        one = found.instance
        assert torch.equal(one.parts[image, :count, :patches], parts)
        assert not one.parts[image, count:].any() and not one.parts[image, :, patches:].any()
        assert one.real[image].tolist() == units.is_instance.tolist() + [False] * (8 - count)
        some = parts.eq(1).any(1) & units.is_instance
        assert one.usable[image, :count].equal(some) and not one.usable[image, count:].any()
        for k in range(count):
            if units.is_instance[k]:
                assert things[one.labels[image, k]] == units.labels[k]
            x1, y1, x2, y2 = one.boxes[image, k].tolist()
            pixels = [x1 * IMAGE[1], y1 * IMAGE[0], x2 * IMAGE[1], y2 * IMAGE[0]]
            assert pixels == pytest.approx(units.bboxes[k].tolist(), rel=1e-5)
        regions = {
            int(c): row for c, row, i in zip(units.labels, parts, units.is_instance) if not i
        }
        for row, label in enumerate(semantic):
            here = label in regions
            assert bool(found.semantic.present[image, row]) == here
            want = regions.get(label, torch.zeros(patches, dtype=torch.int8))
            assert torch.equal(found.semantic.parts[image, row, :patches], want)
            assert not found.semantic.parts[image, row, patches:].any()
            assert bool(found.semantic.usable[image, row]) == bool(want.eq(1).any())
    assert found.instance.num_units == [8, 0, 3, 6] and found.instance.num_patches == [6, 9, 1, 0]


def test_regions_may_have_rules_of_their_own():
    output, samples = batch_of(2, [(8, 6)])
    classes = output.thing_classes, output.semantic_classes
    strict, loose = SAMCPPartAssigner(0.9, None), SAMCPPartAssigner(0.1, None)
    mixed = build_targets(samples, output.boxes, *classes, strict, loose)
    assert torch.equal(
        mixed.instance.parts, build_targets(samples, output.boxes, *classes, strict).instance.parts
    )
    alone = build_targets(samples, output.boxes, *classes, loose)
    assert torch.equal(mixed.semantic.parts, alone.semantic.parts)
    assert not torch.equal(mixed.instance.parts, alone.instance.parts)


def test_a_box_around_the_parts_that_misses_its_unit():
    """IoU of boxes by hand: the parts of unit 0 fill it, those of unit 1 a quarter of it."""
    units = InstanceData(
        labels=torch.tensor([1, 1, 1]),
        is_instance=torch.tensor([True, True, True]),
        bboxes=torch.tensor([[0.0, 0, 40, 30], [40, 0, 80, 60], [0, 30, 40, 60]]),
        mask_iop=torch.tensor([[0.9, 0.9, 0.0], [0.0, 0.0, 0.9], [0.0, 0.0, 0.0]]),
        box_iop=torch.ones(3, 3),
        box_iou=torch.zeros(3, 3),
    )
    _, (sample,) = batch_of(0, [(2, 3)])
    sample.gt_units = units
    patches = torch.tensor([[[0, 0, 0.25, 0.5], [0.25, 0.0, 0.5, 0.5], [0.5, 0, 0.75, 0.5]]])
    classes = torch.tensor([1]), torch.tensor([0, 1])
    usable = [
        build_targets([sample], patches, *classes, SAMCPPartAssigner(), None, limit).instance.usable
        for limit in (None, 0.2, 0.5)
    ]
    assert [u[0].tolist() for u in usable] == [
        [True, True, False],
        [True, True, False],
        [True, False, False],
    ]


def test_a_thing_that_the_model_does_not_know_is_marked():
    output, samples = batch_of(3, [(6, 4)], things=(1, 3))
    samples[0].gt_units.labels[0] = 2
    classes = output.thing_classes, output.semantic_classes
    found = build_targets(samples, output.boxes, *classes, SAMCPPartAssigner()).instance
    assert found.foreign[0].tolist() == [True] + [False] * 5 and not found.real[0, 0]


def test_wrong_samples_are_refused_in_words():
    output, samples = batch_of(4, [(6, 4)])
    classes = output.thing_classes, output.semantic_classes
    with pytest.raises(UserError, match='at most 3 patches.*found 4'):
        build_targets(samples, output.boxes[:, :3], *classes, SAMCPPartAssigner())
    del samples[0].gt_units
    with pytest.raises(UserError, match='LoadUnits'):
        build_targets(samples, output.boxes, *classes, SAMCPPartAssigner())
