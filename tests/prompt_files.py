"""A toy base and prompt files for it, as training would leave them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from toy import CLASSES, PROMPTS, stir, toy_seem, toy_segmentor

from mmprompt.common.prompt_file import PromptFile
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import save_base
from mmprompt.registry import MODELS

FEW = ('road', 'sky', 'car')


def write_stirred_base(path: Path) -> Path:
    """A base whose label maps have classes."""
    config = toy_seem()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SEEM(**config)
    stir(model.decoder)
    return save_base(path, model, config)


def write_prompt(base: Path, path: Path, classes=CLASSES, learned='SSPrompt', seed=0) -> Path:
    """Write a prompt file with random values."""
    spatial = 'SpaPrompt' if learned == 'SSPrompt' else 'DefaultPrompt'
    head = dict(spatial_prompt=dict(type=spatial, num_prompts=PROMPTS))
    model = MODELS.build(toy_segmentor(base, classes=classes, decode_head=head))
    model.load_base()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
    return prompt_of(model).save(path)


def prompt_of(model: nn.Module) -> PromptFile:
    """What a model learned that writes one file."""
    (file,) = model.export_files().values()
    return file


def save_files(model: nn.Module, folder: Path) -> Path:
    """Write what was learned as training does; the path to give to `load_prompt`."""
    return [file.save(folder / name) for name, file in model.export_files().items()][0]


def write_picture(path: Path, size=(40, 56), seed=0, **options) -> np.ndarray:
    """Write a coloured picture; return its RGB values (H, W, 3)."""
    random = np.random.default_rng(seed)
    small = random.integers(256, size=(5, 7, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.NEAREST))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return picture


def write_video(path: Path, count=5) -> list[int]:
    """Write a video of frames of one grey each; return the greys."""
    greys = [40 * (i + 1) for i in range(count)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 32))
    for grey in greys:
        writer.write(np.full((32, 64, 3), grey, np.uint8))
    writer.release()
    return greys
