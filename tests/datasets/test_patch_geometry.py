"""Geometry that was not recorded is found; geometry that was is not suspected."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmcv.transforms import BaseTransform, Compose
from mmengine.config import Config
from toy_patches import THINGS, toy_patch_dataset, write_toy_patches

from mmprompt.common.errors import UserError
from mmprompt.datasets.patch_geometry import Placement, check_pipeline, placement, remember
from mmprompt.registry import DATASETS, METRICS, TRANSFORMS

SIZE = (120, 160)
BASES = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


def photograph(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) with light from above and objects here and there, and its labels."""
    random = np.random.default_rng(seed)
    coarse = random.random((9, 12, 3)).astype(np.float32)
    image = mmcv.imresize(coarse, SIZE[::-1], interpolation='bicubic') * 120
    image += np.linspace(120, 0, SIZE[0])[:, None, None]
    labels = np.full(SIZE, 2, np.uint8)
    labels[:40], labels[80:] = 10, 0
    for _ in range(6):
        x, y = random.integers(0, 120), random.integers(0, 80)
        labels[y : y + 30, x : x + 30] = random.choice(THINGS)
    return image.clip(0, 255).astype(np.uint8), labels


def start(seed: int = 0, labels: bool = True) -> dict:
    """Results as behind `LoadPatches` and `LoadUnits`."""
    image, truth = photograph(seed)
    results = dict(img=image, ori_shape=SIZE, img_shape=SIZE, img_path='a.png', seg_fields=[])
    remember(results)
    if labels:
        results |= dict(gt_seg_map=truth, unit_labels=truth, seg_fields=['gt_seg_map'])
    return results


def run(steps: list, seed: int = 0, labels: bool = True) -> Placement:
    built = [s if callable(s) else TRANSFORMS.build(s) for s in steps]
    np.random.seed(seed)
    return placement(Compose(built)(start(seed, labels)))


RESIZE = dict(type='DetResize', scale=(200, 140), keep_ratio=True)
FLIP = dict(type='DetRandomFlip', prob=1.0)
CROP = dict(type='DetRandomCrop', crop_size=(100, 90))
DISTORT = dict(type='mmseg.PhotoMetricDistortion')
PAD = dict(type='mmcv.Pad', size_divisor=64, pad_val=dict(img=0, seg=255))


class Roll(BaseTransform):
    """Moves image and labels, and is on no list."""

    def transform(self, results: dict) -> dict:
        for key in ('img', *results['seg_fields']):
            results[key] = np.roll(results[key], 40, axis=1)
        return results


class Mirror(BaseTransform):
    """The same, of the image alone where there are no labels."""

    def transform(self, results: dict) -> dict:
        for key in ('img', *results['seg_fields']):
            results[key] = np.ascontiguousarray(results[key][:, ::-1])
        return results


class Invert(BaseTransform):
    """Changes colours as much as can be."""

    def transform(self, results: dict) -> dict:
        results['img'] = 255 - results['img']
        return results


def plain(name: str, **arguments) -> dict:
    return dict(type=name, **arguments)


MMSEG_FLIP = plain('mmseg.RandomFlip', prob=1.0, direction='horizontal')
MMCV_FLIP = plain('mmcv.RandomFlip', prob=1.0, direction='horizontal')


@pytest.mark.parametrize('labels', [True, False])
@pytest.mark.parametrize(
    'steps',
    [
        [],
        [RESIZE, FLIP],
        [CROP, FLIP, RESIZE, DISTORT],
        [RESIZE, CROP, RESIZE, PAD, FLIP],
        [Invert(), FLIP],
        [RESIZE, Invert(), CROP],
        [
            dict(
                type='mmseg.RandomCutOut',
                prob=1.0,
                n_holes=4,
                cutout_shape=(25, 25),
                seg_fill_in=255,
            )
        ],
    ],
)
def test_recorded_geometry_is_believed(steps, labels):
    if not labels:
        steps = [s for s in steps if 'seg_fill_in' not in (s if isinstance(s, dict) else {})]
    for seed in range(8):
        placed = run(steps, seed, labels)
        assert np.isfinite([*placed.scale, *placed.offset]).all() and (placed.scale != 0).all()


@pytest.mark.parametrize(
    'steps, labels',
    [
        # Nothing recorded at all.
        ([plain('mmcv.Resize', scale=(80, 60), keep_ratio=True)], False),
        ([plain('mmseg.Resize', scale=(80, 60), keep_ratio=True)], True),
        ([plain('mmseg.RandomCrop', crop_size=(60, 60))], True),
        ([MMSEG_FLIP], True),
        ([MMCV_FLIP], False),
        ([plain('mmcv.CenterCrop', crop_size=(60, 60))], False),
        # Behind or before what was recorded.
        ([RESIZE, MMSEG_FLIP], True),
        ([FLIP, MMSEG_FLIP], True),
        ([FLIP, MMCV_FLIP], False),
        ([MMSEG_FLIP, RESIZE], False),
        ([RESIZE, MMCV_FLIP], False),
        ([RESIZE, plain('mmseg.RandomCrop', crop_size=(60, 60))], True),
        ([plain('mmseg.RandomCrop', crop_size=(60, 60)), FLIP], True),
        ([plain('mmseg.Resize', scale=(80, 60), keep_ratio=True), FLIP], True),
        ([plain('mmseg.Resize', scale=(80, 60), keep_ratio=True), FLIP], False),
        # By a transform that nobody knows.
        ([RESIZE, Roll()], True),
        ([Roll()], True),
        ([CROP, Mirror()], True),
        ([CROP, Mirror()], False),
        ([RESIZE, Mirror(), DISTORT], False),
    ],
)
def test_unrecorded_geometry_is_refused(steps, labels):
    """On one image of a few at least: an image may look alike when moved."""
    refused = 0
    for seed in range(4):
        try:
            run(steps, seed, labels)
        except UserError as error:
            assert 'did not record it' in str(error) and 'DetResize' in str(error)
            refused += 1
    assert refused >= 3


def test_a_turn_is_refused():
    class Turn(BaseTransform):
        def transform(self, results):
            results['homography_matrix'] = np.array([[0.9, 0.1, 0], [-0.1, 0.9, 0], [0, 0, 1]])
            return results

    with pytest.raises(UserError, match='turn or a shear'):
        run([Turn()])


def test_a_wrong_img_shape_is_refused():
    class Forget(BaseTransform):
        def transform(self, results):
            results['img_shape'] = (1, 1)
            return results

    with pytest.raises(UserError, match='img_shape says'):
        run([RESIZE, Forget()])


@pytest.mark.parametrize(
    'step, name',
    [
        (plain('mmseg.Resize', scale=(80, 60)), 'mmseg.Resize'),
        (plain('mmcv.Resize', scale=(80, 60)), 'mmcv.Resize'),
        (MMSEG_FLIP, 'mmseg.RandomFlip'),
        (MMCV_FLIP, 'mmcv.RandomFlip'),
        (plain('mmseg.RandomCrop', crop_size=(9, 9)), 'mmseg.RandomCrop'),
        (plain('mmseg.RandomRotate', prob=1.0, degree=9.0), 'mmseg.RandomRotate'),
        (
            plain('RandomChoiceResize', scales=[(80, 60)], resize_type='mmseg.Resize'),
            'mmseg.Resize',
        ),
        (plain('RandomChoice', transforms=[[RESIZE], [RESIZE, MMSEG_FLIP]]), 'mmseg.RandomFlip'),
        (plain('RandomApply', transforms=[MMSEG_FLIP], prob=0.1), 'mmseg.RandomFlip'),
        (plain('mmseg.ResizeShortestEdge', scale=9, max_size=90), 'mmcv.Resize'),
    ],
)
def test_known_transforms_are_named_when_the_dataset_is_built(step, name, tmp_path):
    write_toy_patches(tmp_path, images=1)
    config = toy_patch_dataset(tmp_path, step)
    with pytest.raises(UserError, match=f'^{name}: expected transforms that record'):
        DATASETS.build(dict(type='GuardedDataset', dataset=config))


def test_mmdetections_own_transforms_are_known():
    transforms = pytest.importorskip('mmdet.datasets.transforms')
    pack = TRANSFORMS.build(dict(type='PackPatchInputs'))
    record = [transforms.Resize(scale=(9, 9)), transforms.RandomFlip(prob=0.5)]
    check_pipeline(Compose([*record, transforms.RandomCrop((9, 9)), transforms.Pad((9, 9)), pack]))
    for step in (transforms.Expand(), transforms.MinIoURandomCrop(), transforms.RandomAffine()):
        with pytest.raises(UserError, match=f'^mmdet.{type(step).__name__}: expected transforms'):
            check_pipeline(Compose([*record, step, pack]))
    with pytest.raises(UserError, match='^mmdet.Rotate: expected .* cannot follow a turn'):
        check_pipeline(Compose([transforms.Rotate(), pack]))


def test_pipelines_without_patches_may_do_what_they_like():
    built = [TRANSFORMS.build(s) for s in (MMSEG_FLIP, dict(type='mmseg.PackSegInputs'))]
    for pipeline in (Compose(built), None):
        assert check_pipeline(pipeline) is None  # refusing is raising


@pytest.mark.parametrize('path', sorted(BASES.glob('samcp_*.py')), ids=lambda path: path.stem)
def test_our_own_pipelines_record_all(path):
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        if loader := cfg.get(f'{split}_dataloader'):
            steps = [TRANSFORMS.build(step) for step in loader.dataset.pipeline]
            assert type(steps[1]).__name__ == 'LoadPatches'
            assert type(steps[-1]).__name__ == 'PackPatchInputs'
            check_pipeline(Compose(steps))


def test_streets_as_configured(tmp_path):
    cfg = Config.fromfile(BASES / 'samcp_streets.py')
    for split in ('train', 'val', 'test'):
        store = write_toy_patches(tmp_path, images=2, split=split)
        config = cfg[f'{split}_dataloader'].dataset
        config.update(data_root=str(tmp_path), serialize_data=False)
        config.pipeline[1].store = str(store)
        sample = DATASETS.build(dict(type='GuardedDataset', dataset=config))[0]['data_samples']
        assert len(sample.patches) and len(sample.gt_units)
        assert ('gt_panoptic_seg' in sample) == (split != 'train')
    for metric in cfg.test_evaluator:
        METRICS.build(metric)


def test_places_by_hand():
    """Twice as large, flipped, and cut: x' = -2 x + 300, y' = 2 y - 20."""
    place = Placement(np.array([-2.0, 2.0]), np.array([300.0, -20.0]), SIZE, (100, 200))
    assert place.rect == (50, 10, 150, 60) and not place.whole
    assert place.flipped == (True, False)
    boxes = place.boxes(np.array([[60, 20, 70, 30], [40, 5, 60, 100]], np.float32))
    assert boxes.tolist() == [[160, 20, 180, 40], [180, 0, 200, 100]]
    bits = np.arange(49).reshape(1, 7, 7)
    assert (place.regions(bits) == bits[:, :, ::-1]).all()
    # Of a pixel that the edge cuts in two halves or less, the centre decides.
    half = Placement(np.array([1.0, 1.0]), np.array([-2.4, -2.6]), SIZE, (10, 10))
    assert half.rect == (2, 3, 12, 13)
