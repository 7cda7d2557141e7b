"""The experiment of a SAM-CP leaf on toy data: every switch of its config with tiny layers."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from PIL import Image
from safetensors.torch import save_file
from tiny_clip import CHANNELS as CLIP_CHANNELS
from tiny_clip import tiny_clip
from toy_patches import BUILDING, CAR, PERSON, ROAD, SKY, toy_masks, toy_scene, write_toy_patches

from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.foundation.clip import load_clip

IMAGES = 2
DIM = 16
CHANNELS = [8, 16, 32, 64]
SHORT, LONG = 48, 96
CLIP = {**tiny_clip(), 'embed_dim': DIM}
#: Sizes of a backbone by its type; the channels of its maps are `CHANNELS`, or CLIP's.
BACKBONES = {
    'mmprompt.CLIPConvNeXt': dict(model=CLIP),
    'mmseg.ResNet': dict(depth=18, base_channels=8, stem_channels=8),
    'mmseg.SwinTransformer': dict(
        embed_dims=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=2
    ),
    'mmprompt.FocalNet': dict(
        embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(1, 1, 1, 1), focal_windows=(3, 3, 3, 3)
    ),
}


def shrink_samcp(cfg: Config, folder: Path) -> None:
    """Make model, data and patches of a config tiny, in place."""
    for name in ('train', 'val', 'test'):
        loader = cfg.get(f'{name}_dataloader')
        if loader:
            loader.batch_size = min(loader.batch_size, IMAGES)
            _shrink_data(cfg, loader.dataset, folder)
    shrink_model(cfg.model, folder)


def shrink_model(model: ConfigDict, folder: Path) -> None:
    """Narrow layers without pretrained weights, and embeddings at random or by a random CLIP."""
    head, backbone = model.head, model.backbone
    backbone.update(copy.deepcopy(BACKBONES[backbone.type]))
    backbone.pop('init_cfg', None)
    clip = 'CLIP' in backbone.type
    if model.get('neck'):
        model.neck.update(in_channels=list(CLIP_CHANNELS) if clip else CHANNELS, out_channels=DIM)
        if model.neck.get('norm_cfg'):
            model.neck.norm_cfg.num_groups = 2
    head.update(in_channels=DIM, dim=DIM, text_dim=DIM)
    head.setdefault('patch_encoder', ConfigDict()).update(hidden=DIM, num_heads=2, ffn_dim=DIM)
    head.patch_encoder.num_layers = min(head.patch_encoder.get('num_layers', 6), 1)
    head.setdefault('decoder', ConfigDict()).update(num_layers=2, num_heads=2, ffn_dim=DIM)
    if head.decoder.get('affinity_ffn_dim'):
        head.decoder.affinity_ffn_dim = DIM
    if head.get('denoising', {}) is not None:
        head.setdefault('denoising', ConfigDict()).num_queries = 4
    if clip:
        # Names and files of names stay: the toy reads them.
        backbone.pretrained = str(write_clip(folder / 'clip.safetensors'))
        head.text.update(clip=copy.deepcopy(CLIP), pretrained=backbone.pretrained, templates='a {}')
        return
    head.text = str(folder / 'text.npy')
    rows = np.random.default_rng(0).normal(size=(len(model.classes), DIM))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(head.text, rows.astype(np.float32))


def write_clip(path: Path) -> Path:
    """The random weights of `CLIP`, everywhere the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(load_clip(CLIP).state_dict(), path)
    return path


def _shrink_data(cfg: Config, dataset: ConfigDict, folder: Path) -> None:
    place = f'{dataset.data_prefix.img_path}/{dataset.get("ann_file", "")}'
    root = folder / dataset.type / place.replace('/', '_')
    writer = WRITERS[dataset.type]
    if not root.exists():
        writer(cfg, dataset, root)
    dataset.data_root = str(root)
    for node in _transforms(dataset.pipeline):
        kind = node.type
        if kind == 'LoadPatches':
            node.store = str(root / 'toy.db')
        elif kind == 'LoadCocoInstances':
            node.ann_file = str(root / 'instances.json')
        elif kind in ('DetRandomChoiceResize', 'DetResize'):
            # As many scales of the same form: of two sides, or of the shorter one.
            key = 'scales' if kind == 'DetRandomChoiceResize' else 'scale'
            several = node[key] if key == 'scales' else [node[key]]
            small = [SHORT if isinstance(one, int) else (LONG, SHORT) for one in several]
            node[key] = small if key == 'scales' else small[0]
            if 'max_size' in node:
                node.max_size = LONG
        elif kind == 'DetResizeShortestEdge':
            node.update(scale=SHORT, max_size=LONG)
        elif kind == 'DetRandomCrop':
            node.crop_size = (SHORT // 2, SHORT)


def _transforms(pipeline):
    for node in pipeline:
        yield node
        for branch in node.get('transforms', ()):
            yield from _transforms(branch)


def _cityscapes(cfg: Config, dataset: ConfigDict, root: Path) -> None:
    split = Path(dataset.data_prefix.img_path).name
    write_toy_patches(root, IMAGES, split).rename(root / 'toy.db')


def _classes(cfg: Config) -> dict[int, int]:
    """Label of `toy_scene` -> class of a config: stuff for stuff, things for things."""
    things = [int(i) for i in cfg.model.head.thing_classes]
    stuff = [i for i in range(len(cfg.model.classes)) if i not in things] or things[2:]
    return {ROAD: stuff[0], BUILDING: stuff[1], SKY: stuff[-1], PERSON: things[0], CAR: things[1]}


def _write_images(
    dataset: ConfigDict, root: Path, names: Sequence[str] = ()
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Images and their patches; name, labels and instance ids of each."""
    written = []
    names = names or [f'{seed:012d}.jpg' for seed in range(IMAGES)]
    with PatchStoreWriter(root / 'toy.db', dict(generator='toy', settings={})) as store:
        for seed, name in enumerate(names):
            image, labels, instances = toy_scene(seed)
            path = root / dataset.data_prefix.img_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            store.add(name, PatchSet.from_masks(toy_masks(instances, seed)))
            written.append((name, labels, instances))
        store.finish()
    return written


def _instances(cfg: Config, images: list, only_things: bool) -> dict:
    """COCO's instances JSON; without `only_things` regions of stuff are instances too."""
    classes, things = _classes(cfg), set(cfg.model.head.thing_classes)
    chosen = sorted(things) if only_things else range(len(cfg.model.classes))
    entries, annotations = [], []
    for seed, (name, labels, instances) in enumerate(images):
        height, width = labels.shape
        entries.append(dict(id=seed, file_name=name, height=height, width=width))
        for value in np.unique(instances[labels != 255]):
            mask = (instances == value) & (labels != 255)
            kind = classes[int(labels[mask][0])]
            if only_things and kind not in things:
                continue
            code = PatchSet.from_masks(mask[None]).coco()[0]
            counts = code['counts']
            code['counts'] = counts.decode() if isinstance(counts, bytes) else counts
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=seed,
                    category_id=kind + 1,
                    segmentation=code,
                    bbox=[int(v) for v in box],
                    area=int(mask.sum()),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=cfg.model.classes[i]) for i in chosen]
    return dict(images=entries, annotations=annotations, categories=categories)


def _cod10k(cfg: Config, dataset: ConfigDict, root: Path) -> None:
    """All objects of an image are of the class in its name; the JSON has one category."""
    kinds = [8, 34]  # of the two images
    names = [f'COD10K-CAM-1-Any-{n}-Any-{seed}.jpg' for seed, n in enumerate(kinds)]
    content = _instances(cfg, _write_images(dataset, root, names), only_things=False)
    content['categories'] = [dict(id=1, name='foreground')]
    for annotation in content['annotations']:
        annotation['category_id'] = 1
    path = root / dataset.ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _coco_instances(cfg: Config, dataset: ConfigDict, root: Path) -> None:
    content = _instances(cfg, _write_images(dataset, root), only_things=False)
    path = root / dataset.ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _coco_panoptic(cfg: Config, dataset: ConfigDict, root: Path) -> None:
    images, classes = _write_images(dataset, root), _classes(cfg)
    (root / 'instances.json').write_text(json.dumps(_instances(cfg, images, only_things=True)))
    things, entries, annotations = set(cfg.model.head.thing_classes), [], []
    for seed, (name, labels, instances) in enumerate(images):
        entries.append(dict(id=seed, file_name=name))
        ids = np.where(labels == 255, 0, instances.astype(int))
        segments = [
            dict(id=int(i), category_id=classes[int(labels[ids == i][0])] + 1, iscrowd=0)
            for i in np.unique(ids[ids > 0])
        ]
        png = Path(name).with_suffix('.png').name
        annotations.append(dict(image_id=seed, file_name=png, segments_info=segments))
        path = root / dataset.data_prefix.seg_map_path / png
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
        Image.fromarray(colours.astype(np.uint8)).save(path)
    categories = [
        dict(id=i + 1, name=name, isthing=int(i in things))
        for i, name in enumerate(cfg.model.classes)
    ]
    path = root / dataset.ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=entries, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content))


WRITERS = {
    'mmseg.CityscapesDataset': _cityscapes,
    'CocoPanopticSegDataset': _coco_panoptic,
    'CocoInstanceSegDataset': _coco_instances,
    'COD10KInstanceSegDataset': _cod10k,
}
