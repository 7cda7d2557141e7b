"""The floors against pixels painted one patch after the other, and against known results."""

import dataclasses

import numpy as np
import pytest
import torch
from mmengine.config import Config
from toy_patches import THINGS, toy_patch_dataset, write_toy_patches

from mmprompt.apis.patches.floors import (
    EACH,
    GREEDY,
    ORACLE,
    assigned_members,
    each_patch,
    measure_floors,
    oracle,
    part_assigners,
    put_on,
)
from mmprompt.apis.patches.truth import PatchSplit
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.common.rle import Runs
from mmprompt.datasets.units import TrueUnits
from mmprompt.evaluation.proposal_quality import Overlaps
from mmprompt.methods.samcp.targets import SAMCPPartAssigner


@pytest.fixture(scope='module')
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp('streets')
    write_toy_patches(root, 3)
    return PatchSplit(config(root), 'train')


def config(root, **model) -> Config:
    data = toy_patch_dataset(root, test=True)
    loaders = dict(train_dataloader=dict(dataset=data), test_dataloader=dict(dataset=data))
    return Config(dict(model=model, **loaders))


def members_of(overlaps, seed: int) -> np.ndarray:
    """Of random patches, most of them in the unit: some pixels have several claims, some none."""
    random = np.random.default_rng(seed)
    return (overlaps.iop > 0.2) & (random.random(overlaps.iop.shape) < 0.7)


def masks_of(image) -> tuple[np.ndarray, np.ndarray]:
    index = Overlaps(image.runs, image.patch_runs()).atoms
    return index.cover[: len(image.units)].T[index.index].transpose(2, 0, 1), image.patches.decode()


@pytest.mark.parametrize('seed', range(3))
def test_the_oracle_is_that_of_pixels(split, seed):
    image = split.read(seed)
    overlaps = Overlaps(image.runs, image.patch_runs())
    members = members_of(overlaps, seed)
    found, index = oracle(image, overlaps, members), overlaps.atoms.index
    true, patches = masks_of(image)
    units, height, width = image.units, *index.shape
    union = np.array([np.logical_or.reduce(patches[m], axis=0, initial=False) for m in members])
    purity = [(u & t).sum() / max(u.sum(), 1) for u, t in zip(union, true)]
    single = np.flatnonzero(units.is_instance)
    regions = np.flatnonzero(~units.is_instance)
    segments = [k for k in range(len(units)) if k in single or units.labels[k] not in THINGS]
    for rows, painted in ((regions, found.semantic), (segments, found.panoptic)):
        for y in range(height):
            for x in range(width):
                claims = [k for k in rows if union[k, y, x]]
                own = [k for k in claims if true[k, y, x]]
                best = min(own, key=lambda k: true[k].sum(), default=None)
                if best is None:
                    best = max(claims, key=lambda k: purity[k], default=None)
                value = painted[index[y, x]]
                if best is None:
                    assert value == (255 if rows is regions else -1)
                else:
                    assert value == (units.labels[best] if rows is regions else best)
    kept = [k for k in single if union[k].any()]
    assert np.array_equal(found.masks[:, index], union[kept])
    assert found.labels.tolist() == units.labels[kept].tolist()
    ious = [(union[k] & true[k]).sum() / (union[k] | true[k]).sum() for k in kept]
    assert found.scores.tolist() == pytest.approx(ious)


@pytest.mark.parametrize('seed', range(3))
def test_each_patch_is_painted_from_the_largest_to_the_smallest(split, seed):
    image = split.read(seed)
    overlaps = Overlaps(image.runs, image.patch_runs())
    found, index = each_patch(image, overlaps), overlaps.atoms.index
    true, patches = masks_of(image)
    units = image.units
    stuff = [k for k in range(len(units)) if units.labels[k] not in THINGS]
    regions = np.flatnonzero(~units.is_instance).tolist()
    segments = sorted({*np.flatnonzero(units.is_instance).tolist(), *stuff})
    semantic, label = np.full(index.shape, 255), np.full(index.shape, -1)
    owner = np.full(index.shape, -1)
    instances = []
    for n in sorted(range(len(patches)), key=lambda n: (-patches[n].sum(), -n)):
        share = [(patches[n] & t).sum() / patches[n].sum() for t in true]
        region = max(regions, key=lambda k: share[k])
        segment = max(segments, key=lambda k: share[k])
        if share[region] > 0:
            semantic[patches[n]] = units.labels[region]
        if share[segment] > 0:
            label[patches[n]] = units.labels[segment]
            owner[patches[n]] = -2 if segment in stuff else n
            if segment not in stuff:
                instances.append((n, units.labels[segment], share[segment]))
    assert np.array_equal(found.semantic[index], semantic)
    rows = found.panoptic[index]
    assert np.array_equal(np.where(rows < 0, -1, found.segment_labels[rows]), label)
    assert np.array_equal(np.where(np.isin(label, [-1, *THINGS]), rows, -2), owner)
    instances.sort()
    assert np.array_equal(found.masks[:, index], patches[[n for n, *_ in instances]])
    assert found.labels.tolist() == [c for _, c, _ in instances]
    assert found.scores.tolist() == pytest.approx([s for *_, s in instances])
    for c in {*label.ravel().tolist()} - {-1, *THINGS}:  # one segment of each stuff
        assert len(np.unique(rows[label == c])) == 1


def test_what_was_painted_is_what_evaluators_read(split):
    image = split.read(1, with_sample=True)
    overlaps = Overlaps(image.runs, image.patch_runs())
    result = each_patch(image, overlaps)
    put_on(image.sample, result, overlaps, image, split.classes)
    sample, index = image.sample, overlaps.atoms.index
    assert np.array_equal(sample.pred_sem_seg.data[0].numpy(), result.semantic[index])
    ids = sample.pred_panoptic_seg.data[0]
    listed = sample.pred_segments
    assert set(ids.unique().tolist()) - {0} == set(listed.ids.tolist())
    labels = torch.cat([listed.labels.new_tensor([-1]), listed.labels])[ids].numpy()
    rows = result.panoptic[index]
    assert np.array_equal(labels, np.where(rows < 0, -1, result.segment_labels[rows]))
    assert sample.pred_instances.masks.shape == (len(result.labels), *index.shape)


def test_perfect_patches_merge_to_the_truth_and_alone_they_do_not(split):
    floors = measure_floors(split, config('unused'))
    for name in (ORACLE, GREEDY):
        assert floors[name]['PQ'] == floors[name]['mIoU'] == pytest.approx(100)
        assert floors[name]['AP'] == floors[name]['AP_det'] == pytest.approx(100)
    assert floors[EACH]['PQ_th'] < 30 and floors[EACH]['AP'] < 30
    assert 80 < floors[EACH]['PQ_st'] < 100 and 80 < floors[EACH]['mIoU'] < 100


def test_true_segments_as_patches_are_perfect_even_alone(split, tmp_path):
    store = tmp_path / 'true.db'
    with PatchStoreWriter(store, dict(generator='truth', settings={})) as writer:
        for image in split:
            kept = [k for k in range(len(image.units)) if image.units.labels[k] not in THINGS]
            kept += np.flatnonzero(image.units.is_instance).tolist()
            writer.add(
                image.path.partition('train/')[2], PatchSet.from_masks(masks_of(image)[0][kept])
            )
        writer.finish()
    root = split.dataset.data_root
    again = PatchSplit(config(root), 'train', str(store))
    for metrics in measure_floors(again, config(root)).values():
        for key in ('PQ', 'PQ_th', 'PQ_st', 'AP', 'AP_det', 'mIoU'):
            assert metrics[key] == pytest.approx(100)


def test_no_patches_are_no_results(split, tmp_path):
    store = tmp_path / 'none.db'
    with PatchStoreWriter(store, dict(generator='none', settings={})) as writer:
        for image in split:
            none = PatchSet.from_rles([], image.patches.size)
            writer.add(image.path.partition('train/')[2], none)
        writer.finish()
    root = split.dataset.data_root
    floors = measure_floors(PatchSplit(config(root), 'train', str(store)), config(root))
    assert len(floors) == 3
    for metrics in floors.values():
        assert metrics['PQ'] == metrics['AP'] == metrics['AP_det'] == metrics['mIoU'] == 0


def test_an_image_without_a_labelled_unit_has_no_results(split):
    image = split.read(0)
    units = TrueUnits.from_labels(np.full(image.patches.size, 255))
    none = Runs(image.patches.size, 0, *np.zeros((3, 0), np.int64))
    bare = dataclasses.replace(image, units=units, runs=none)
    overlaps = Overlaps(none, bare.patch_runs())
    members = np.zeros((0, len(bare.patches)), bool)
    for found in (oracle(bare, overlaps, members), each_patch(bare, overlaps)):
        assert (found.semantic == 255).all() and (found.panoptic < 0).all()
        assert len(found.masks) == len(found.labels) == 0


def test_the_assigners_are_those_of_the_config(split):
    assert [a.tau for a in part_assigners(config('x'))] == [0.8, 0.8]
    loss = dict(type='SAMCPLoss', part_assigner=dict(tau=0.6))
    assert [a.tau for a in part_assigners(config('x', parts=[dict(loss=loss)]))] == [0.6, 0.6]
    loss['semantic_assigner'] = dict(type='SAMCPPartAssigner', low_quality=None, tau=0.95)
    own = part_assigners(config('x', head=dict(loss=loss)))
    image = split.read(0, with_sample=True)
    overlaps = Overlaps(image.runs, image.patch_runs())
    truth = image.sample.gt_units  # what training sees of the same image
    expected = [
        SAMCPPartAssigner(**kind)(truth.mask_iop, truth.box_iop, truth.box_iou).numpy() == 1
        for kind in (dict(tau=0.6), dict(tau=0.95, low_quality=None))
    ]
    found, single = assigned_members(image, overlaps, own), image.units.is_instance
    for rows, whole in zip((single, ~single), expected):
        assert np.array_equal(found[rows], whole[rows]) and whole[rows].any()
    assert not np.array_equal(*expected)
