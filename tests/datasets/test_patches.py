"""Patches on their image: every field against whole masks that went through the same pipeline."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader
from toy_patches import (
    BUILDING,
    CAR,
    SIZE,
    THINGS,
    toy_masks,
    toy_patch_batch,
    toy_patch_dataset,
    toy_pipeline,
    toy_scene,
    write_toy_patches,
)

from mmprompt.common import patch_store
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.patches import LoadPatches, LoadUnits
from mmprompt.registry import DATASETS

FLIP = [
    dict(type='DetRandomFlip', prob=1.0, direction=d)
    for d in ('horizontal', 'vertical', 'diagonal')
]
CROP = dict(type='DetRandomCrop', crop_size=(50, 30))
LARGER = dict(type='DetResize', scale=(250, 130), keep_ratio=False)
SMALLER = dict(type='DetResize', scale=(70, 40), keep_ratio=True)
SIDES = dict(type='DetRandomChoiceResize', scales=[(150, 90), (200, 110)], keep_ratio=True)
#: In which pixels stay whole, so that whole masks give the exact answer.
WHOLE = [[], *([flip] for flip in FLIP), [CROP], *([CROP, flip] for flip in FLIP), [FLIP[2], CROP]]
SCALED = [
    [LARGER],
    [SMALLER],
    [LARGER, FLIP[0]],
    [FLIP[1], SMALLER, CROP],
    [SIDES, CROP, SIDES, FLIP[0]],
    [LARGER, CROP, FLIP[2], LARGER, CROP],
    [dict(type='RandomChoice', transforms=[[SMALLER], [LARGER, CROP, SIDES]]), FLIP[0]],
]


class Carry(BaseTransform):
    """Put whole masks of patches and the numbers of pixels among the maps that transforms move."""

    def __init__(self, masks: np.ndarray) -> None:
        self.masks = masks

    def transform(self, results: dict) -> dict:
        for i, mask in enumerate(self.masks):
            results[f'mask{i}'] = mask.astype(np.uint8)
        results['pixel'] = np.arange(self.masks[0].size, dtype=np.int32).reshape(SIZE)
        results['seg_fields'] += [f'mask{i}' for i in range(len(self.masks))] + ['pixel']
        return results


class Keep(BaseTransform):
    """Keep what was carried."""

    def transform(self, results: dict) -> dict:
        self.results = dict(results)
        return results


@pytest.fixture(scope='module')
def toy(tmp_path_factory) -> Path:
    """A folder with three images and their store."""
    folder = tmp_path_factory.mktemp('toy')
    write_toy_patches(folder)
    return folder


def moved(toy: Path, geometry: list, image: int = 0, seed: int = 0) -> tuple:
    """The packed sample, and the stored masks and pixels' numbers as they lie in the input."""
    masks = toy_masks(toy_scene(image)[2], image)
    pipeline = toy_pipeline(toy / 'toy_train.patches', *geometry)
    keep = Keep()
    steps = [*pipeline[:5], Carry(masks), *pipeline[5:-1], keep, pipeline[-1]]
    dataset = DATASETS.build({**toy_patch_dataset(toy), 'pipeline': []})
    np.random.seed(seed)
    sample = Compose(steps)(dataset.get_data_info(image))['data_samples']
    carried = np.stack([keep.results[f'mask{i}'] for i in range(len(masks))]) > 0
    return sample, masks, carried, keep.results['pixel']


def tight(mask: np.ndarray) -> list[int]:
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def coverage(mask: np.ndarray, box: list[int]) -> np.ndarray:
    """Covered share of each cell of a 7 x 7 grid on a box, by repeating pixels 7 times."""
    x1, y1, x2, y2 = box
    fine = mask[y1:y2, x1:x2].repeat(7, 0).repeat(7, 1)
    return fine.reshape(7, y2 - y1, 7, x2 - x1).mean((1, 3))


@pytest.mark.parametrize('geometry', WHOLE)
@pytest.mark.parametrize('image', range(3))
def test_rows_are_those_of_whole_masks(geometry, image, toy):
    sample, masks, carried, _ = moved(toy, geometry, image, seed=image)
    patches = sample.patches
    seen = np.flatnonzero(carried.any((1, 2)))
    assert patches.ids.tolist() == seen.tolist()  # whatever was dropped, first, last or between
    stored = sample.patch_set
    np.testing.assert_array_equal(stored.decode(), masks)
    np.testing.assert_array_equal(patches.scores, stored.scores[seen])
    for box, region, mask in zip(patches.bboxes, patches.regions, carried[seen]):
        assert box.tolist() == tight(mask)
        np.testing.assert_array_equal(region, coverage(mask, tight(mask)) >= 0.5)


def test_a_patch_in_the_middle_that_a_crop_drops_moves_no_row(toy):
    """The published crop pairs the masks of the first rows with the boxes of those that stay."""
    for seed in range(40):
        sample, _, carried, _ = moved(toy, [CROP], seed=seed)
        gone = np.flatnonzero(~carried.any((1, 2)))
        stay = sample.patches.ids.numpy()
        if len(gone) and len(stay) and gone.min() < stay.max():
            break
    else:
        pytest.fail('no crop dropped a patch before another')
    for i, box, region in zip(stay, sample.patches.bboxes, sample.patches.regions):
        assert box.tolist() == tight(carried[i])
        np.testing.assert_array_equal(region, coverage(carried[i], tight(carried[i])) >= 0.5)


@pytest.mark.parametrize('geometry', WHOLE)
def test_iop_is_exact(geometry, toy):
    sample, _, carried, pixel = moved(toy, geometry, seed=1)
    _, labels, instances = toy_scene(0)
    labels, instances = labels.ravel()[pixel], instances.ravel()[pixel]  # as the input shows them
    units = sample.gt_units
    patches = carried[sample.patches.ids].reshape(len(sample.patches), -1).astype(float)
    single = np.unique(instances[instances >= 1000])
    assert units.is_instance.sum() == len(single)
    rows = list(single) + sorted(set(np.unique(labels)) - {255})
    assert len(units) == len(rows)
    for k, number in enumerate(rows):
        mask = instances == number if k < len(single) else labels == number
        label = labels[mask][0]
        assert (units.labels[k], bool(units.is_instance[k])) == (label, k < len(single))
        assert units.bboxes[k].tolist() == tight(mask)
        share = patches @ mask.ravel() / patches.sum(1)
        np.testing.assert_array_equal(units.mask_iop[k], share.astype(np.float32))
        for n, patch in enumerate(sample.patches.bboxes.tolist()):
            a, b = units.bboxes[k].tolist(), patch
            sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1)]
            inside = sides[0] * sides[1]
            own, other = ((c[2] - c[0]) * (c[3] - c[1]) for c in (b, a))
            assert float(units.box_iop[k, n]) == np.float32(inside / own)
            assert float(units.box_iou[k, n]) == np.float32(inside / (own + other - inside))


def test_scaled_patches_lie_on_scaled_masks(toy):
    """Nearest pixels of warped masks are off by up to a pixel of either image."""
    compared = 0
    for seed, geometry in enumerate(SCALED * 2):
        sample, _, carried, pixel = moved(toy, geometry, seed=seed)
        height, width = pixel.shape
        assert sample.img_shape == (height, width)
        sides = [np.ptp(pixel // SIZE[1]) + 1, np.ptp(pixel % SIZE[1]) + 1]  # of the original
        step = max(1, height / sides[0], width / sides[1]) + 1
        patches, areas = sample.patches, carried.sum((1, 2))
        large = set(np.flatnonzero(areas > 4 * step**2).tolist())
        assert large and large <= set(patches.ids.tolist())
        for i, box, region in zip(patches.ids.tolist(), patches.bboxes.numpy(), patches.regions):
            assert (box[:2] >= 0).all() and box[2] <= width and box[3] <= height
            assert (box[2:] > box[:2]).all()
            if i not in large:
                continue
            np.testing.assert_allclose(box, tight(carried[i]), atol=step)
            middles = (np.arange(7) + 0.5) / 7
            x, y = (box[a] + middles * (box[a + 2] - box[a]) for a in (0, 1))
            if min(box[2:] - box[:2]) > 20:  # then few cells are in doubt at their middle
                inside = carried[i][y.astype(int)[:, None], x.astype(int)]
                assert (region.numpy() == inside).mean() > 0.75
                compared += not inside.all()
    assert compared > 4


@pytest.mark.parametrize('geometry', SCALED)
def test_scaled_iop_is_near_that_of_warped_masks(geometry, toy):
    sample, _, carried, pixel = moved(toy, geometry, seed=3)
    labels = toy_scene(0)[1].ravel()[pixel]
    patches = carried[sample.patches.ids].reshape(len(sample.patches), -1).astype(float)
    units = sample.gt_units
    for k in torch.nonzero(~units.is_instance)[:, 0].tolist():
        mask = labels == int(units.labels[k])
        share = patches @ mask.ravel() / patches.sum(1).clip(1)
        many = patches.sum(1) > 200
        assert np.abs(units.mask_iop[k].numpy() - share)[many].max(initial=0) < 0.12


def test_iop_does_not_see_what_a_resizing_rounds(toy):
    plain = moved(toy, [])[0].gt_units
    scaled = moved(toy, [SMALLER, FLIP[0]])[0].gt_units
    torch.testing.assert_close(scaled.mask_iop, plain.mask_iop, rtol=0, atol=0)
    torch.testing.assert_close(scaled.box_iop, plain.box_iop, rtol=0, atol=1e-5)


def test_a_crop_without_patches_or_units(toy, tmp_path):
    masks = np.zeros((2, *SIZE), bool)
    masks[:, :9, :9] = True
    store = tmp_path / 'corner.patches'
    with PatchStoreWriter(store, dict(generator='toy', settings={})) as writer:
        for i in range(3):
            found = PatchSet.from_masks(masks if i else masks[:0])
            writer.add(f'toy/toy_{i:06d}_000000_leftImg8bit.png', found)
        writer.finish()
    right = dict(type='mmprompt.DetRandomCrop', crop_size=(20, 20))
    config = {**toy_patch_dataset(toy), 'pipeline': toy_pipeline(store, right)}
    dataset = DATASETS.build(config)
    dataset.pipeline.transforms[-2]._rand_offset = lambda margin: (margin[0], margin[1])
    for i in range(3):
        sample = dataset[i]['data_samples']
        assert len(sample.patches) == 0 and sample.patches.bboxes.shape == (0, 4)
        assert sample.patches.regions.shape == (0, 7, 7)
        assert sample.gt_units.mask_iop.shape == (len(sample.gt_units), 0)
        assert len(sample.patch_set) == (2 if i else 0)
    results = dict(img=np.zeros((*SIZE, 3), np.uint8), ori_shape=SIZE, img_path='a.png')
    results |= dict(gt_seg_map=np.full(SIZE, 255, np.uint8), seg_fields=['gt_seg_map'])
    void = LoadUnits()(results)['units']
    assert len(void) == 0


def test_image_without_truth(toy):
    pipeline = toy_pipeline(toy / 'toy_train.patches', LARGER)
    bare = [pipeline[0], pipeline[1], LARGER, pipeline[-1]]
    sample = DATASETS.build({**toy_patch_dataset(toy), 'pipeline': bare})[0]['data_samples']
    assert 'gt_units' not in sample and len(sample.patches) == len(sample.patch_set)
    void = np.full(SIZE, 255, np.uint8)

    class Void(BaseTransform):
        def transform(self, results):
            results['gt_seg_map'][:], results['gt_panoptic_map'][:] = void, 0
            return results

    pipeline.insert(4, Void())
    steps = Compose(pipeline)
    dataset = DATASETS.build({**toy_patch_dataset(toy), 'pipeline': []})
    sample = steps(dataset.get_data_info(0))['data_samples']
    assert len(sample.gt_units) == 0
    assert sample.gt_units.mask_iop.shape == (0, len(sample.patches))
    assert sample.gt_units.bboxes.shape == (0, 4)


def test_testing_keeps_the_truth_of_the_original(toy):
    batch = toy_patch_batch(toy, LARGER, test=True)
    for i, (image, sample) in enumerate(zip(batch['inputs'], batch['data_samples'])):
        assert image.shape == (3, 130, 250) and sample.gt_sem_seg.shape == SIZE
        assert sample.gt_panoptic_seg.shape == SIZE and len(sample.gt_segments)
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0], toy_scene(i)[1])
        scale = torch.tensor([250 / 96, 130 / 48] * 2)
        torch.testing.assert_close(
            sample.patches.bboxes, torch.from_numpy(sample.patch_set.boxes) * scale
        )
        assert sample.patches.bboxes.dtype == sample.gt_units.mask_iop.dtype == torch.float32
        assert sample.patches.ids.dtype == sample.gt_units.labels.dtype == torch.long


def test_training_keeps_the_units_alone(toy):
    sample = toy_patch_batch(toy, CROP)['data_samples'][0]
    assert 'gt_panoptic_seg' not in sample and sample.gt_sem_seg.shape == (30, 50)


def test_labels_alone_give_regions(toy):
    pipeline = toy_pipeline(toy / 'toy_train.patches', FLIP[0])
    del pipeline[3]
    sample = DATASETS.build({**toy_patch_dataset(toy), 'pipeline': pipeline})[0]
    units = sample['data_samples'].gt_units
    assert not units.is_instance.any() and {BUILDING, CAR} <= set(units.labels.tolist())


def test_a_crowd_is_part_of_its_region_and_no_instance(toy):
    results = dict(ori_shape=(4, 6), img_path='a.png', seg_fields=['gt_panoptic_map'])
    panoptic = np.zeros((4, 6), np.int32)
    panoptic[:, :2], panoptic[:, 2:4], panoptic[:, 4:] = 14000, 14001, 1000
    units = LoadUnits(THINGS)(results | dict(gt_panoptic_map=panoptic))['units']
    assert units.labels.tolist() == [13, 0, 13]
    assert units.is_instance.tolist() == [True, False, False]
    patches = PatchSet.from_masks(np.ones((1, 4, 6), bool))
    seen = units.seen(patches.runs, None)
    assert seen.pixels.tolist() == [8, 8, 16] and seen.shared[:, 0].tolist() == [8, 8, 16]


def test_small_units_can_be_left_out(toy):
    pipeline = toy_pipeline(toy / 'toy_train.patches')
    pipeline[-1]['min_area'] = 200
    config = toy_patch_dataset(toy)
    all_units = DATASETS.build(config)[0]['data_samples'].gt_units
    some = DATASETS.build({**config, 'pipeline': pipeline})[0]['data_samples'].gt_units
    assert 0 < len(some) < len(all_units)


@pytest.mark.parametrize(
    'arguments, kept',
    [
        (dict(), [0, 1, 2, 3, 4]),
        (dict(max_patches=3), [1, 3, 4]),
        (dict(max_patches=4), [0, 1, 3, 4]),  # of the equal scores of 0 and 2 the larger
        (dict(min_score=0.5), [1, 3, 4]),
        (dict(min_area=20), [0, 1, 3]),
        (dict(min_area=20, max_patches=1), [3]),
    ],
)
def test_choice_of_patches(arguments, kept):
    areas = [40, 50, 10, 30, 12]
    masks = np.zeros((5, 10, 10), bool)
    for mask, area in zip(masks, areas):
        mask.ravel()[:area] = True
    patches = PatchSet.from_masks(masks, [0.2, 0.7, 0.2, 0.9, 0.8])
    assert LoadPatches('no.db', **arguments).chosen(patches).tolist() == kept


def test_the_store_is_opened_once_in_each_worker(toy, monkeypatch):
    store = toy / 'toy_train.patches'
    opened = []
    read_only = patch_store.read_only
    monkeypatch.setattr(patch_store, 'read_only', lambda p: opened.append(p) or read_only(p))
    load = pickle.loads(pickle.dumps(LoadPatches(store)))
    assert not opened  # building reads no file
    for i in range(9):
        image, _, _ = toy_scene(i % 3)
        load(
            dict(
                img=image, ori_shape=SIZE, img_path=f'x/toy/toy_{i % 3:06d}_000000_leftImg8bit.png'
            )
        )
    assert len(opened) == 1


def test_each_sample_brings_a_seed_for_its_noise(toy):
    """The same where the pipeline draws the same, another one for another sample."""
    seeds = [moved(toy, [], 0, seed)[0].gt_units.noise_seed for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2] and isinstance(seeds[0], int)
    dataset = DATASETS.build(toy_patch_dataset(toy))
    first, again = ([dataset[i]['data_samples'].gt_units for i in (0, 1)] for _ in range(2))
    assert len({units.noise_seed for units in (*first, *again)}) == 4  # anew in every epoch


def test_workers_give_the_same(toy):
    dataset = DATASETS.build(toy_patch_dataset(toy, FLIP[0]))
    here = [dataset[i]['data_samples'] for i in range(3)]
    spawned = pickle.loads(pickle.dumps(dataset))  # as it comes to a process that was not forked
    loader = DataLoader(dataset, num_workers=2, collate_fn=pseudo_collate)
    there = [sample for batch in loader for sample in batch['data_samples']]
    for mine, sample in zip(here * 2, there + [spawned[i]['data_samples'] for i in range(3)]):
        for field in ('patches', 'gt_units'):
            for name, value in mine.get(field).items():
                assert torch.equal(value, sample.get(field)[name])


def test_refuses_what_does_not_fit(toy):
    store = toy / 'toy_train.patches'
    image, labels, _ = toy_scene(0)
    load = LoadPatches(store)
    good = dict(
        img=image, ori_shape=SIZE, img_path='toy/toy_000000_000000_leftImg8bit.png', seg_fields=[]
    )
    with pytest.raises(UserError, match='tools/generate_patches.py'):
        load({**good, 'img_path': 'toy/other.png'})
    with pytest.raises(UserError, match='EXIF.*generate_patches.py CONFIG --generator toy'):
        load({**good, 'img': image.transpose(1, 0, 2), 'ori_shape': SIZE[::-1]})
    with pytest.raises(UserError, match='right behind LoadImageFromFile'):
        load({**good, 'img': image[:9]})
    with pytest.raises(UserError, match='right behind LoadImageFromFile'):
        load({**good, 'homography_matrix': np.eye(3)})
    with pytest.raises(UserError, match='does not exist'):
        LoadPatches(toy / 'no.db')(dict(good))
    with pytest.raises(UserError, match='expects labels'):
        LoadUnits()(dict(good))
    late = dict(good, gt_seg_map=labels, homography_matrix=np.diag([-1.0, 1, 1]))
    with pytest.raises(UserError, match='before any flip'):
        LoadUnits()(late)
    with pytest.raises(UserError, match='before any flip'):
        LoadUnits()(dict(good, gt_seg_map=labels[::2]))
    with pytest.raises(UserError, match='expects patches'):
        Compose([dict(type='mmprompt.PackPatchInputs')])(dict(good))
