"""From an image on disk, or an RGB array, to masks: what a notebook imports."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.structures import SegDataSample

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.cli import find_config
from mmprompt.common.prompt_file import PromptFile
from mmprompt.registry import MODELS

Image = str | Path | np.ndarray


class Inferencer:
    """A frozen model with an optional learned prompt, ready to be called on images.

    Args:
        config: path of a config, or the config itself.
        prompt: path of a prompt file; None gives the zero-shot model.
        device: where the model runs.

    Raises:
        UserError: if the config, the base weights or the prompt file cannot be used.

    Example:
        >>> config = 'configs/ssprompt/nano_streets-fog_16shot.py'
        >>> segment = Inferencer(config, 'prompt.safetensors')
        >>> label_map = segment('street.png').pred_sem_seg.data[0]  # (H, W), class indices
    """

    def __init__(
        self, config: str | Path | Config, prompt: str | Path | None = None, device: str = 'cpu'
    ) -> None:
        self.config = config if isinstance(config, Config) else find_config(config)
        init_default_scope(self.config.get('default_scope', 'mmprompt'))
        self.model = MODELS.build(self.config.model).to(device).eval()
        self.model.load_base()
        if prompt is not None:
            self.model.load_prompt(PromptFile.load(prompt))
        steps = self.config.test_dataloader.dataset.pipeline
        self._pipeline = Compose([step for step in steps if 'Annotations' not in step['type']])

    @torch.no_grad()
    def __call__(self, images: Image | Sequence[Image]) -> SegDataSample | list[SegDataSample]:
        """Segment one image or a list of them.

        Args:
            images: a path, an RGB array (H, W, 3) of 0 to 255, or a list of those.

        Returns:
            A data sample, or a list of them, whose ``pred_sem_seg.data`` is (1, H, W) at the
            image's own size.
        """
        single = isinstance(images, (str, Path, np.ndarray))
        inputs = [self._prepare(image) for image in ([images] if single else images)]
        results = [self.model.test_step(pseudo_collate([item]))[0] for item in inputs]
        return results[0] if single else results

    def _prepare(self, image: Image) -> dict:
        if not isinstance(image, np.ndarray):
            return self._pipeline(dict(img_path=str(image)))
        bgr = np.ascontiguousarray(image[..., ::-1])
        item = dict(img=bgr, img_shape=bgr.shape[:2], ori_shape=bgr.shape[:2], img_path='')
        for step in self._pipeline.transforms:
            if type(step).__name__ != 'LoadImageFromFile':
                item = step(item)
        return item
