"""A tiny data set with patches, made in milliseconds: streets of rectangles and a store."""

from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict
from mmseg.datasets import CityscapesDataset
from PIL import Image

from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet

CLASSES = CityscapesDataset.METAINFO['classes']
THINGS = (11, 12, 13, 14, 15, 16, 17, 18)
ROAD, BUILDING, SKY, PERSON, CAR = 0, 2, 10, 11, 13
SIZE = (48, 96)
_LABEL_IDS = {ROAD: 7, BUILDING: 11, SKY: 23, PERSON: 24, CAR: 26}  # of Cityscapes' own numbering


def toy_scene(seed: int = 0, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, ...]:
    """An RGB image, its labels and its instance ids as Cityscapes stores them.

    Sky, buildings and road one below the other; two cars, one half hidden, and a person.
    """
    random = np.random.default_rng(seed)
    height, width = size
    labels = np.full(size, BUILDING, np.uint8)
    labels[: height // 4 + random.integers(4)] = SKY
    labels[height * 2 // 3 + random.integers(4) :] = ROAD
    instances = np.vectorize(_LABEL_IDS.get)(labels).astype(np.uint16)
    x, y = random.integers(2, width // 3), random.integers(height // 3, height // 2)
    boxes = [
        (CAR, 0, x, y, x + width // 4, y + height // 3),
        (CAR, 1, x + width // 6, y + 4, x + width // 3, y + height // 3 + 4),
        (PERSON, 0, width * 3 // 4, y, width * 3 // 4 + 6, y + height // 3),
    ]
    for label, number, left, top, right, bottom in boxes:
        labels[top:bottom, left:right] = label
        instances[top:bottom, left:right] = _LABEL_IDS[label] * 1000 + number
    labels[-2:] = 255
    instances[-2:] = 3
    image = np.stack([labels * 13, instances % 251, 255 - labels], -1).astype(int)
    noisy = image + random.integers(-9, 10, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels, instances


def toy_masks(instances: np.ndarray, seed: int = 0, extra: int = 4) -> np.ndarray:
    """Masks (N, H, W) bool of patches: each segment in two to four parts, and random boxes."""
    random = np.random.default_rng(seed)
    height, width = instances.shape
    masks = []
    for number in np.unique(instances):
        mask = instances == number
        columns = np.flatnonzero(mask.any(0))
        cuts = np.linspace(columns[0], columns[-1] + 1, random.integers(3, 6)).astype(int)
        for left, right in zip(cuts, cuts[1:]):
            part = mask.copy()
            part[:, :left], part[:, right:] = False, False
            masks.append(part)
    for _ in range(extra):
        part = np.zeros_like(mask)
        left, top = random.integers(width - 9), random.integers(height - 9)
        part[top : top + random.integers(3, 30), left : left + random.integers(3, 40)] = True
        masks.append(part)
    return np.stack([m for m in masks if m.any()])


def write_toy_patches(root: Path, images: int = 3, split: str = 'train', seed: int = 0) -> Path:
    """Write images, labels and a store in Cityscapes' folders; gives the path of the store."""
    root = Path(root)
    store = root / f'toy_{split}.patches'
    with PatchStoreWriter(store, dict(generator='toy', settings=dict(seed=seed))) as writer:
        for i in range(images):
            image, labels, instances = toy_scene(seed + i)
            name = f'toy/toy_{i:06d}_000000'
            files = {
                f'leftImg8bit/{split}/{name}_leftImg8bit.png': image,
                f'gtFine/{split}/{name}_gtFine_labelTrainIds.png': labels,
                f'gtFine/{split}/{name}_gtFine_instanceIds.png': instances,
            }
            for path, pixels in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / path)
            masks = toy_masks(instances, seed + i)
            scores = np.random.default_rng(i).random(len(masks)).astype(np.float32)
            key = f'{name}_leftImg8bit.png'
            digest = image_digest(root / f'leftImg8bit/{split}' / key)
            writer.add(key, PatchSet.from_masks(masks, scores), digest)
        writer.finish()
    return store


def toy_pipeline(store: Path, *geometry: dict, test: bool = False, **load) -> list[dict]:
    """A pipeline over `write_toy_patches`; `geometry` are the transforms in between."""
    labels = [
        dict(type='mmseg.LoadAnnotations'),
        dict(type='LoadCityscapesPanoptic', thing_classes=THINGS),
        dict(type='LoadUnits', thing_classes=THINGS, keep_truth=test),
    ]
    head = [dict(type='LoadImageFromFile'), dict(type='LoadPatches', store=str(store), **load)]
    steps = [*geometry, *labels] if test else [*labels, *geometry]
    return [*head, *steps, dict(type='PackPatchInputs', thing_classes=THINGS)]


def toy_patch_dataset(
    root: Path, *geometry: dict, split: str = 'train', test: bool = False, **load
) -> ConfigDict:
    """Config of the data set of `write_toy_patches` (which must have been called)."""
    return ConfigDict(
        type='mmseg.CityscapesDataset',
        serialize_data=False,  # it would collect garbage first, which takes a second
        data_root=str(root),
        data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
        pipeline=toy_pipeline(Path(root) / f'toy_{split}.patches', *geometry, test=test, **load),
    )


def toy_patch_batch(
    root: Path, *geometry: dict, images: int = 3, test: bool = False, **load
) -> dict:
    """What a data loader gives: `inputs`, a list of (3, h, w), and `data_samples`."""
    from mmprompt.registry import DATASETS

    if not (Path(root) / 'toy_train.patches').exists():
        write_toy_patches(root, images)
    dataset = DATASETS.build(toy_patch_dataset(root, *geometry, test=test, **load))
    samples = [dataset[i] for i in range(images)]
    return {key: [s[key] for s in samples] for key in ('inputs', 'data_samples')}
