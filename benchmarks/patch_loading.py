"""What patches cost a data loader: loading, placing in the input and IoP, beside decoded masks.

The same pictures, patches, units and augmentation go two ways on one core. `runs` is the pipeline
of this project (LoadPatches, LoadUnits, PackPatchInputs); `masks` decodes every patch, warps all of
them as MMDetection warps masks, takes boxes and RoIAlign of each, and multiplies them with the
warped units. A figure is the median over images; the ratio is of the same run.

    python benchmarks/patch_loading.py [--size 480 640] [--patches 300] [--images 20] [--out PATH]
    python benchmarks/patch_loading.py --clock processor   # on a busy machine
"""

import argparse
import csv
import io
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.ops import roi_align

from mmprompt.common.files import atomic_file
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import CELLS, PatchSet
from mmprompt.datasets.det_transforms import DetRandomCrop, DetRandomFlip, DetResize
from mmprompt.datasets.patch_geometry import placement
from mmprompt.datasets.patches import LoadPatches, LoadUnits, view
from mmprompt.datasets.transforms import ID_DIVISOR, describe_segments

CLOCKS = dict(wall=time.perf_counter, processor=time.process_time)
CLASSES, THINGS = 20, tuple(range(8))
#: Pixels by which edges of patches tremble. So a patch has some 160 runs at 480x640; those that
#: MobileSAM finds on photographs of COCO have 120 on average.
RAGGED = 0.2
HEADER = ('way', 'step', 'images', 'height', 'width', 'patches', 'ms', 'ratio')


def superpixels(random: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    """A map (H, W) of cells with ragged edges, as segmentations of photographs have."""
    height, width = size
    coarse = random.standard_normal((2, max(height // 16, 2), max(width // 16, 2)))
    shift = [
        cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) * 8 for each in coarse
    ]
    noise = random.standard_normal((2, height, width)) * RAGGED
    y, x = np.mgrid[:height, :width]
    place = np.stack([y + shift[0] + noise[0], x + shift[1] + noise[1]], axis=-1)
    side = (height * width / count) ** 0.5
    rows, columns = max(round(height / side), 1), max(round(width / side), 1)
    row = (place[..., 0] / height * rows).astype(int).clip(0, rows - 1)
    column = (place[..., 1] / width * columns).astype(int).clip(0, columns - 1)
    return row * columns + column


def sample(seed: int, size: tuple[int, int], count: int) -> tuple[np.ndarray, ...]:
    """An image, a panoptic map and N patches: superpixels of two sizes and unions of them."""
    random = np.random.default_rng(seed)
    units = superpixels(random, size, 24)
    labels = random.integers(CLASSES, size=units.max() + 1)
    number = np.where(np.isin(labels, THINGS), np.arange(len(labels)) + 1, 0)
    panoptic = ((labels + 1) * ID_DIVISOR + number)[units].astype(np.int32)
    fine = superpixels(random, size, count * 2 // 3)
    cells = random.permutation(fine.max() + 1)
    masks = [fine == cell for cell in cells[: count * 2 // 3]]
    while len(masks) < count:  # larger ones that overlap, as proposals do
        masks.append(np.isin(fine, random.choice(cells, random.integers(2, 9))))
    masks = np.stack([mask for mask in masks if mask.any()][:count])
    image = (units[..., None] * [7, 11, 13] % 256).astype(np.uint8)
    return image, panoptic, masks


def augmentation(size: tuple[int, int]) -> list:
    """Resize, flip and crop, as samples of COCO are trained."""
    height, width = size
    return [
        DetResize(scale=(int(width * 1.3), int(height * 1.3)), keep_ratio=True),
        DetRandomFlip(prob=0.5),
        DetRandomCrop(crop_size=(width, height)),
    ]


class Timer:
    """Milliseconds of each step of each image."""

    def __init__(self, clock: str) -> None:
        self.clock, self.rows = CLOCKS[clock], {}

    def __call__(self, step: str, call, *arguments):
        start = self.clock()
        result = call(*arguments)
        self.rows.setdefault(step, []).append((self.clock() - start) * 1e3)
        return result

    def median(self, step: str) -> float:
        return statistics.median(self.rows[step])

    def total(self) -> float:
        """Median over images of the sum of all steps."""
        return statistics.median(sum(parts) for parts in zip(*self.rows.values()))


def by_runs(timer: Timer, results: dict, load: LoadPatches, units: LoadUnits, steps: list) -> tuple:
    """This project's way."""
    results = timer('load', load, results)
    results = timer('units', units, results)
    for step in steps:
        results = step(results)
    found = timer('warp and IoP', lambda: view(results, placement(results)))
    return results, found


def by_masks(timer: Timer, results: dict, stored: PatchSet, panoptic: np.ndarray) -> None:
    """Decode and warp every mask as the image was warped; the same answers, on whole masks."""
    masks = timer('load', lambda: stored.decode().view(np.uint8))
    matrix, (height, width) = results['homography_matrix'], results['img_shape']
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    pixels = (np.linalg.inv(half) @ matrix @ half)[:2]

    def warped(image: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(image, pixels, (width, height), flags=cv2.INTER_NEAREST)

    def units() -> np.ndarray:
        segments = describe_segments(panoptic, THINGS)
        classes = segments.labels.unique()
        rows = [panoptic == i for i in segments.ids[segments.is_thing].tolist()]
        rows += [panoptic // ID_DIVISOR - 1 == c for c in classes.tolist()]
        return np.stack([warped(row.view(np.uint8)) for row in rows])

    truth = timer('units', units)

    def warp() -> tuple:
        moved = np.stack([warped(mask) for mask in masks])
        seen = moved[moved.any(axis=(1, 2))]
        rows, columns = seen.any(axis=2), seen.any(axis=1)
        sides = [columns.argmax(1), rows.argmax(1), width - columns[:, ::-1].argmax(1)]
        boxes = np.stack([*sides, height - rows[:, ::-1].argmax(1)], axis=1)
        boxes = torch.cat([torch.arange(len(seen))[:, None], torch.from_numpy(boxes)], 1).float()
        whole = torch.from_numpy(seen)[:, None].float()
        regions = roi_align(whole, boxes, CELLS, aligned=True) >= 0.5
        flat = seen.reshape(len(seen), -1).astype(np.float32)
        share = truth.reshape(len(truth), -1).astype(np.float32) @ flat.T / flat.sum(axis=1)
        return regions, share

    timer('warp and IoP', warp)


def measure(options: argparse.Namespace) -> dict[str, Timer]:
    """Both ways, image by image in turns."""
    size, timers = tuple(options.size), {way: Timer(options.clock) for way in ('runs', 'masks')}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / 'bench.patches'
        pictures = []
        with PatchStoreWriter(store, dict(generator='benchmark', settings={})) as writer:
            for i in range(options.images):
                image, panoptic, masks = sample(i, size, options.patches)
                writer.add(f'{i}.png', PatchSet.from_masks(masks))
                pictures.append((image, panoptic))
            writer.finish()
        load, units = LoadPatches(store), LoadUnits(THINGS, keep_truth=False)
        load.store.keys()  # opened, as by the first image of a worker
        np.random.seed(0)
        for i, (image, panoptic) in enumerate(pictures):
            results = dict(img=image, img_path=f'{i}.png', ori_shape=size, img_shape=size)
            labels = (panoptic // ID_DIVISOR - 1).astype(np.uint8)
            results |= dict(gt_seg_map=labels, gt_panoptic_map=panoptic)
            results['seg_fields'] = ['gt_seg_map', 'gt_panoptic_map']
            results, _ = by_runs(timers['runs'], results, load, units, augmentation(size))
            by_masks(timers['masks'], results, results['patch_set'], panoptic)
    return timers


def table(timers: dict[str, Timer], options: argparse.Namespace) -> list[tuple]:
    """One row per way and step."""
    rows, common = [], (options.images, *options.size, options.patches)
    for way, timer in timers.items():
        for step in (*timer.rows, 'all'):
            ms = timer.total() if step == 'all' else timer.median(step)
            other = timers['masks']
            theirs = other.total() if step == 'all' else other.median(step)
            rows.append((way, step, *common, f'{ms:.2f}', f'{ms / theirs:.3f}'))
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), help='height and width')
    parser.add_argument('--patches', type=int, default=300)
    parser.add_argument('--images', type=int, default=20)
    parser.add_argument('--clock', choices=CLOCKS, default='wall')
    parser.add_argument('--out', type=Path, help='a CSV file is written here')
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(HEADER)
    writer.writerows(table(measure(options), options))
    print(text.getvalue(), end='')
    if options.out:
        with atomic_file(options.out) as stream:
            stream.write(text.getvalue().encode())


if __name__ == '__main__':
    main()
