"""A tiny SAM-CP on a frozen backbone as training would leave it: config, weights and pictures."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file
from toy_patches import toy_pipeline, toy_scene
from toy_samcp import CLASSES, TEXT_DIM, stir_affinity, toy_detector

from mmprompt.common.patches import PatchSet
from mmprompt.foundation.patch_generators import PatchGenerator
from mmprompt.registry import MODELS

#: Names whose embeddings are there, those of training first.
NAMES = (*CLASSES, 'kite', 'automobile', 'head', 'arm', 'wheel')
PATCHES = dict(generator='toy-blocks', settings=dict(rows=4, columns=5))


@MODELS.register_module(force=True)
class ToyBlocks(PatchGenerator):
    """A grid of blocks and the whole picture; counts how often it was asked."""

    name = 'toy-blocks'

    def __init__(self, rows: int = 2, columns: int = 3) -> None:
        self.rows, self.columns, self.asked = rows, columns, 0

    def settings(self) -> dict:
        return dict(rows=self.rows, columns=self.columns)

    def __call__(self, image: np.ndarray) -> PatchSet:
        self.asked += 1
        height, width = image.shape[:2]
        rows = np.arange(height)[:, None] * self.rows // height
        blocks = rows * self.columns + np.arange(width) * self.columns // width
        masks = [blocks == number for number in range(self.rows * self.columns)]
        return PatchSet.from_masks(np.stack([*masks, np.ones_like(masks[0])]))


def write_samcp(folder: Path, recipe: dict | None = None, **model) -> tuple[Path, Path]:
    """Write a config and ``head.safetensors``.

    Args:
        folder: of both.
        recipe: over what training says of itself.
        model: keys over those of the model.
    """
    rows = np.random.default_rng(3).standard_normal((len(NAMES), TEXT_DIM))
    np.save(folder / 'text.npy', rows.astype(np.float32))
    text = dict(array=str(folder / 'text.npy'), names=list(NAMES))
    test = dict(panoptic_affinity=0.0)  # those of an untrained head are low
    detector = toy_detector(text, **{'frozen_backbone': True, 'test_cfg': test, **model})
    weights = folder / 'backbone.safetensors'
    detector.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    config = Config(
        dict(
            default_scope='mmprompt',
            model=detector.to_dict(),
            test_dataloader=dict(dataset=dict(pipeline=toy_pipeline(folder / 'no.db', test=True))),
        )
    )
    config.dump(folder / 'config.py')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = MODELS.build(config.model)
        save_file(dict(built.backbone.state_dict()), weights)
        stir_affinity(built.head)
        with torch.no_grad():
            built.head.classifier.prior.fill_(0.0)  # scores around a half, not a hundredth
    file = built.export_files()['head.safetensors']
    file.recipe.update(dict(patches=PATCHES) if recipe is None else recipe)
    return folder / 'config.py', file.save(folder / 'head.safetensors')


def write_scene(path: Path, seed: int = 0) -> np.ndarray:
    """Write a street of rectangles; return its RGB values (H, W, 3)."""
    picture = toy_scene(seed, (64, 96))[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return picture
