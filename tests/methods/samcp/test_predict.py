"""Merging against brute force on decoded masks, in loops over patches, queries and pixels."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmseg.evaluation.metrics import IoUMetric
from mmseg.structures import SegDataSample
from samcp_brute import THINGS, Brute
from samcp_cases import Scene, leaves, random_output
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import nms

from mmprompt.common.errors import UserError
from mmprompt.common.patches import PatchSet
from mmprompt.common.results import mask_boxes, to_det_sample
from mmprompt.evaluation import InstanceAP, PanopticQuality
from mmprompt.methods.samcp import canvas as canvas_module
from mmprompt.methods.samcp.canvas import Canvas
from mmprompt.methods.samcp.pairwise import perfect_scores
from mmprompt.methods.samcp.predict import (
    VOID,
    ImageScores,
    SAMCPPredictor,
    read_scores,
)
from mmprompt.methods.samcp.targets import SAMCPPartAssigner
from mmprompt.registry import TASK_UTILS

SIZE = (9, 13)
CLASSES = 5


def random_patches(seed: int, count: int) -> PatchSet:
    """Patches that overlap, and leave pixels that none covers."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), dtype=bool)
    for mask in masks:
        top, left = rng.integers(0, SIZE[0] - 3), rng.integers(0, SIZE[1] - 4)
        mask[top : top + rng.integers(1, 5), left : left + rng.integers(1, 6)] = True
        mask &= rng.random(SIZE) > 0.2
        mask[top, left] = True
    masks[:, -1] = masks[:, :, -1] = False
    return PatchSet.from_masks(masks)


def sample_of(patches: PatchSet, ids: list[int] | None = None) -> SegDataSample:
    ids = list(range(len(patches))) if ids is None else ids
    sample = SegDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE))
    sample.set_data(dict(patches=InstanceData(ids=torch.tensor(ids, dtype=torch.long))))
    sample.set_field(patches, 'patch_set')
    return sample


def random_scores(seed: int, patches: int, semantic=tuple(range(CLASSES))) -> ImageScores:
    output = random_output(
        torch.Generator().manual_seed(seed), [patches], CLASSES, THINGS, list(semantic)
    )
    with torch.no_grad():
        return read_scores(output, 0)


OPTIONS = [
    dict(),
    dict(mask_rule='threshold', mask_threshold=0.6, semantic_score=0.5, unclaimed='void'),
    dict(semantic_pixel='score', panoptic_pixel='score*affinity', overlap_threshold=0.5),
    dict(instance_score='class*affinity', instance_top_k=7, panoptic_top_k=3),
    dict(instance_min_score=0.4, panoptic_score=0.6, panoptic_affinity=0.8, unclaimed='void'),
    dict(mask_threshold=0.9, semantic_score=0.0, overlap_threshold=0.0),
]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('semantic', [tuple(range(CLASSES)), (0, 2)], ids=['all', 'stuff'])
def test_results_are_those_of_brute_force(options, semantic):
    dropped = filled = 0
    for seed, count in enumerate((6, 9, 2, 5, 3)):
        patches, scores = random_patches(seed, count), random_scores(seed, count, semantic)
        sample, brute = sample_of(patches), Brute(options, scores, patches)
        SAMCPPredictor(**options).add(sample, scores)
        assert np.array_equal(sample.pred_sem_seg.data[0].numpy(), brute.semantic())
        filled += brute.filled
        wanted, segments = brute.panoptic()
        assert np.array_equal(sample.pred_panoptic_seg.data[0].numpy(), wanted)
        found = sample.pred_segments
        assert found.ids.tolist() == list(range(1, len(segments) + 1))
        assert found.labels.tolist() == [label for label, _ in segments]
        assert found.scores.tolist() == pytest.approx([score for _, score in segments])
        dropped += len(brute.rows(True)) - len(segments)
        want = brute.instances()
        found = sample.pred_instances
        assert found.labels.tolist() == [label for _, label, _ in want]
        assert found.scores.tolist() == pytest.approx([score for score, _, _ in want])
        assert np.array_equal(found.masks.numpy(), np.stack([mask for _, _, mask in want]))
        assert torch.equal(found.bboxes, mask_boxes(found.masks))
    assert dropped > 0 or options.get('overlap_threshold') == 0.0
    assert filled > 0 or options.get('unclaimed') == 'void'


def test_semantic_from_the_panoptic_map():
    """As released: the same map without ids, void where it has no segment."""
    patches, scores = random_patches(0, 6), random_scores(0, 6)
    sample = sample_of(patches)
    SAMCPPredictor(semantic_from='panoptic', overlap_threshold=0.4).add(sample, scores)
    labels = {0: VOID} | dict(
        zip(sample.pred_segments.ids.tolist(), sample.pred_segments.labels.tolist())
    )
    want = [[labels[i] for i in row] for row in sample.pred_panoptic_seg.data[0].tolist()]
    assert sample.pred_sem_seg.data[0].tolist() == want
    assert len(labels) > 2 and len({v for row in want for v in row}) > 2
    alone = sample_of(patches)
    SAMCPPredictor(
        semantic_from='panoptic', overlap_threshold=0.4, panoptic=False, instances=False
    ).add(alone, scores)
    assert torch.equal(alone.pred_sem_seg.data, sample.pred_sem_seg.data)
    assert 'pred_panoptic_seg' not in alone and 'pred_instances' not in alone


def test_nms_of_boxes_class_by_class():
    patches, scores = random_patches(0, 9), random_scores(0, 9)
    plain, few = sample_of(patches), sample_of(patches)
    SAMCPPredictor().add(plain, scores)
    SAMCPPredictor(nms_iou=0.5).add(few, scores)
    every, kept = plain.pred_instances, few.pred_instances
    assert 0 < len(kept) < len(every)
    rows = []
    for label in THINGS:
        mine = (every.labels == label).nonzero()[:, 0]
        rows += mine[nms(every.bboxes[mine], every.scores[mine].float(), 0.5)].tolist()
    assert torch.equal(kept.masks, every.masks[sorted(rows)])
    assert torch.equal(kept.scores, every.scores[sorted(rows)])


def test_the_batch_is_its_images_and_patches_may_be_chosen():
    """Padding, other images and patches that the model did not see change nothing."""
    draw = torch.Generator().manual_seed(3)
    sets = [random_patches(i, n) for i, n in enumerate((7, 8, 5))]
    ids = [[6, 0, 3], [1, 2, 4, 5, 7], []]
    output = random_output(draw, [3, 5, 0], CLASSES, THINGS)
    samples = [sample_of(*pair) for pair in zip(sets, ids)]
    assert SAMCPPredictor()(output, samples) is samples
    for image, sample in enumerate(samples):
        alone = sample_of(sets[image].select(ids[image]))
        SAMCPPredictor().add(alone, read_scores(output, image))
        for name in ('pred_sem_seg', 'pred_panoptic_seg'):
            assert torch.equal(sample.get(name).data, alone.get(name).data)
        assert torch.equal(sample.pred_instances.masks, alone.pred_instances.masks)
    assert read_scores(output, 0).affinity_instance.shape == (3, 3)


def test_no_patches_claim_nothing():
    output = random_output(torch.Generator().manual_seed(0), [0], CLASSES, THINGS)
    sample = sample_of(random_patches(0, 4), [])
    SAMCPPredictor(nms_iou=0.5)(output, [sample])
    assert sample.pred_sem_seg.data.shape == (1, *SIZE) and (sample.pred_sem_seg.data == VOID).all()
    assert not sample.pred_panoptic_seg.data.any() and len(sample.pred_segments) == 0
    assert sample.pred_instances.masks.shape == (0, *SIZE)


@pytest.mark.parametrize(
    ('things', 'semantic'), [([], [0, 1, 2]), ([0, 1, 2], []), ([0, 1, 2], [0, 1, 2])], ids=str
)
def test_without_things_or_without_stuff(things, semantic):
    draw = torch.Generator().manual_seed(2)
    output, sample = random_output(draw, [6], 3, things, semantic), sample_of(random_patches(0, 6))
    SAMCPPredictor()(output, [sample])
    found = set(sample.pred_segments.labels.tolist())
    assert found and found <= {0, 1, 2}
    assert (len(sample.pred_instances) > 0) == bool(things)
    assert set(sample.pred_sem_seg.data.unique().tolist()) <= {0, 1, 2, VOID}
    assert (sample.pred_sem_seg.data != VOID).any()


@pytest.mark.parametrize('classes', [0, 1, 2000])
def test_any_number_of_classes(classes):
    """With and without patches."""
    for count in (6, 0):
        things = list(range(0, classes, 3))
        output = random_output(torch.Generator().manual_seed(0), [count], classes, things, layers=1)
        sample = sample_of(random_patches(0, count))
        SAMCPPredictor()(output, [sample])
        found = set(sample.pred_sem_seg.data.unique().tolist())
        assert found <= {*range(classes), max(VOID, classes)}
        assert (found == {max(VOID, classes)}) == (not classes or not count)
        assert len(sample.pred_instances) == (min(100, count * len(things)))
        assert ('sem_seg' in sample.pred_panoptic_seg) == (classes < 1000)


def test_class_255_is_a_class():
    patches = random_patches(0, 1)
    output = random_output(torch.Generator().manual_seed(0), [1], 300, [], layers=1)
    output.semantic_logits = torch.full_like(output.semantic_logits, -9.0)
    output.semantic_logits[..., 255] = 9.0
    sample = sample_of(patches)
    SAMCPPredictor()(output, [sample])
    mask = torch.from_numpy(patches.decode()[0].copy())
    assert torch.equal(sample.pred_sem_seg.data[0], torch.where(mask, 255, 300))


@pytest.mark.parametrize('options', OPTIONS[:3], ids=str)
def test_rows_come_in_blocks(options, monkeypatch):
    """How many classes are compared at a time changes nothing."""
    patches, scores, samples = random_patches(0, 9), random_scores(0, 9), []
    for at_a_time in (2**24, 60, 1):
        monkeypatch.setattr(canvas_module, 'AT_A_TIME', at_a_time)
        samples.append(sample_of(patches))
        SAMCPPredictor(**options).add(samples[-1], scores)
    for other in samples[1:]:
        for name in ('pred_sem_seg', 'pred_panoptic_seg'):
            assert torch.equal(samples[0].get(name).data, other.get(name).data)


class Counted(TorchDispatchMode):
    """How many operators run."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_no_loop_over_patches_queries_or_classes():
    numbers = []
    for count, classes in ((5, 5), (60, 5), (60, 40)):
        output = random_output(
            torch.Generator().manual_seed(0), [count], classes, [1, 3, 4], layers=1
        )
        sample = sample_of(random_patches(1, count))
        with Counted() as counted:
            SAMCPPredictor(panoptic_score=0.0)(output, [sample])
        numbers.append(counted.calls)
    assert len(set(numbers)) == 1, numbers


def test_half_precision_is_widened():
    patches = random_patches(0, 6)
    output = random_output(torch.Generator().manual_seed(0), [6], CLASSES, THINGS)
    results, names = [], list(leaves(output))
    for dtype in (torch.bfloat16, torch.float32):
        for name in names:
            setattr(output, name, getattr(output, name).detach().bfloat16().to(dtype))
        sample = sample_of(patches)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            SAMCPPredictor()(output, [sample])
        results.append(sample)
    assert torch.equal(results[0].pred_sem_seg.data, results[1].pred_sem_seg.data)
    assert torch.equal(results[0].pred_instances.scores, results[1].pred_instances.scores)
    assert results[0].pred_instances.scores.dtype == torch.float32


def measured(metric, sample) -> dict:
    metric.dataset_meta = dict(classes=['sky', 'road', 'car', 'dog'], thing_classes=[2, 3])
    metric.process({}, [sample.to_dict()])
    return metric.evaluate(1)


def test_perfect_affinities_of_whole_pieces_are_the_truth():
    """Where patches tile the units the best answer is the truth, by every evaluator."""
    for seed in range(3):
        scene = Scene(seed)
        classes = torch.tensor([2, 3]), torch.arange(4)
        sample = scene.sample
        SAMCPPredictor().add(sample, perfect_scores(sample.gt_units, *classes))
        assert np.array_equal(sample.pred_sem_seg.data[0].numpy(), scene.label)
        truth = SegDataSample(metainfo=sample.metainfo)
        truth.set_data(scene.truth() | dict(sample.items()))
        assert measured(PanopticQuality(classwise=False), truth)['PQ'] == pytest.approx(100)
        assert measured(InstanceAP(classwise=False), truth)['AP'] == pytest.approx(100)
        metric = IoUMetric(iou_metrics=['mIoU'])
        assert measured(metric, truth)['mIoU'] == pytest.approx(100)


def test_perfect_affinities_are_the_merge_oracle():
    """Patches that overlap units in part: each unit is the union of its parts, pixel by pixel."""
    rng = np.random.default_rng(0)
    scene = Scene(0)
    masks = scene.parts.copy()
    for mask in masks:  # patches that reach over the borders of units
        mask |= np.roll(mask, int(rng.integers(0, 2)), axis=int(rng.integers(0, 2)))
    scene.refresh(masks)
    units, sample = scene.sample.gt_units, scene.sample
    assigner = SAMCPPartAssigner(low_quality=None)
    scores = perfect_scores(units, torch.tensor([2, 3]), torch.arange(4), assigner)
    SAMCPPredictor(instance_min_score=0.5, overlap_threshold=0.0).add(sample, scores)
    parts = assigner(units.mask_iop, units.box_iop, units.box_iou).numpy() == 1
    assert 0 < parts.sum() < len(masks) * 2
    want = [masks[row].any(axis=0) for row in parts[units.is_instance.numpy()] if row.any()]
    found = sample.pred_instances.masks.numpy()
    assert len(found) == len(want)
    for mask in want:
        assert any(np.array_equal(mask, other) for other in found)
    regions = {int(c): parts[k] for k, c in enumerate(units.labels) if not units.is_instance[k]}
    label = sample.pred_sem_seg.data[0].numpy()
    for c, row in regions.items():
        others = [masks[other].any(axis=0) for k, other in regions.items() if k != c]
        sure = masks[row].any(axis=0) & ~np.any(others, axis=0)
        assert (label[sure] == c).all()


def test_samples_of_mmdetection_hold_the_same():
    scene = Scene(0)
    scores = perfect_scores(scene.sample.gt_units, torch.tensor([2, 3]), torch.arange(4))
    sample = to_det_sample(scene.sample)
    SAMCPPredictor().add(sample, scores)
    assert sample.pred_panoptic_seg.sem_seg.dtype == torch.int32
    assert sample.pred_instances.bboxes.shape[1] == 4
    SAMCPPredictor().add(scene.sample, scores)
    for name in ('pred_sem_seg', 'pred_panoptic_seg'):
        assert torch.equal(sample.get(name).data, scene.sample.get(name).data)


def test_it_builds_by_name_and_refuses_other_words():
    assert TASK_UTILS.build(dict(type='SAMCPPredictor', nms_iou=0.8)).nms_iou == 0.8
    for name in ('mask_rule', 'semantic_from', 'unclaimed', 'instance_score', 'panoptic_pixel'):
        with pytest.raises(ValueError, match=f'test_cfg.{name}: expected one of'):
            SAMCPPredictor(**{name: 'none'})


def test_a_sample_without_patches_is_refused():
    output = random_output(torch.Generator().manual_seed(0), [2], CLASSES, THINGS)
    with pytest.raises(UserError, match='LoadPatches'):
        SAMCPPredictor()(output, [SegDataSample()])


def test_boxes_of_unions_leave_empty_patches_out():
    masks = np.zeros((3, *SIZE), dtype=bool)
    masks[0, 4:6, 5:8], masks[1, 3, 9] = True, True
    canvas = Canvas(PatchSet.from_masks(masks), torch.device('cpu'))
    member = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 1, 0]]).bool()
    assert canvas.hulls(member).tolist() == [[5, 4, 8, 6], [5, 3, 10, 6], [9, 3, 10, 4]]
    assert canvas.hulls(member[:0]).shape == (0, 4)
    assert canvas.area(canvas.union(member)).tolist() == [6, 7, 1]
