"""A config with its prompt where `tools/predict.py` has a base with many."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from mmprompt.apis.cli import find_config
from mmprompt.apis.inference.inferencer import Image, Inferencer, Predictions
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.apis.learn.spm import base_facts
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import HEAD_FILE, PROMPT_FILE, PromptFile
from mmprompt.methods.ssprompt.prompt_sets import PromptSet


class ConfigPredictor:
    """Predicts as `Inferencer` does with a base, by the config of a trained segmentor.

    Args:
        config: of SPM; its test pipeline says at which size images are seen.
        prompts: one prompt file, in a list, or in a dict by name.
        device: where the network runs.

    Attributes:
        classes, things, many: as of an `Inferencer` with a base.

    Raises:
        UserError: not one prompt, or a file that does not fit the config.
    """

    def __init__(
        self, config: str, prompts: Sequence[str] | Mapping[str, str], device: str = 'cpu'
    ) -> None:
        if len(prompts) != 1:
            raise UserError(
                f'--prompts: expected the one file that was trained with {config}, found '
                f'{len(prompts)}. Give {PROMPT_FILE}, or {HEAD_FILE} of head tuning.'
            )
        given = dict(prompts) if isinstance(prompts, Mapping) else {'': prompts[0]}
        ((name, path),) = given.items()
        file = PromptFile.load(path, kinds=('prompt', 'head'))
        name = name or Path(path).stem
        self._name, self._segment = name, Inferencer(find_config(config), path, device)
        classes = tuple(self._segment.model.classes or file.classes)
        # What it learned stands where other methods have their embeddings.
        learned = PromptSet(name, classes, torch.empty(0), file.tensors, file.method, str(path))
        self.classes, self.things = {name: classes}, {name: ()}
        fingerprint = base_facts(config)['fingerprint']
        self.many = SimpleNamespace(sets={name: learned}, fingerprint=fingerprint)

    def stream(
        self, images: Iterable[Image], task: str = 'semantic', batch: int = 1, **thresholds: Any
    ) -> Iterator[Predictions]:
        """As `Inferencer.stream`; images go through the network one by one.

        Raises:
            UserError: another task than 'semantic'.
        """
        if task != 'semantic' or thresholds:
            raise UserError(
                f'--task {task}: expected semantic, without thresholds, for a config of SPM. '
                f'Leave them out.'
            )
        for image in images:
            sample = self._segment(image)
            probs = sample.seg_logits.data.softmax(dim=0).cpu()  # (C, H, W)
            labels = sample.pred_sem_seg.data[0].cpu()
            scores = [float(part[labels == i].mean()) for i, part in enumerate(probs)]
            made = Prediction(
                self._name, task, self.classes[self._name], (), tuple(labels.shape),
                labels.numpy(), np.nan_to_num(np.float32(scores)), (labels, scores),
            )  # fmt: skip
            yield {self._name: made}

    def __call__(self, image: Image, task: str = 'semantic', **thresholds: Any) -> Predictions:
        """`stream` of one image."""
        return next(self.stream([image], task, **thresholds))
