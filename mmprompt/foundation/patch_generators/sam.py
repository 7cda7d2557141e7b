"""Patches of MobileSAM, SAM and SAM 2."""

import inspect
from abc import abstractmethod
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.patches import PatchSet
from mmprompt.foundation.patch_generators.base import PatchGenerator
from mmprompt.foundation.sam.everything import EverythingSettings, everything
from mmprompt.foundation.sam.hugging_face import Sam2Prompter, SamPrompter, load_transformers
from mmprompt.foundation.sam.prompter import Prompter, SAMPrompter
from mmprompt.foundation.sam.sam import SAM
from mmprompt.registry import MODELS

_SETTINGS = tuple(field.name for field in fields(EverythingSettings))


class EverythingPatches(PatchGenerator):
    """Everything mode of a model of the SAM family; weights are read at first use.

    Args:
        weights: what the model is filled with.
        batch: points decoded at once; 256 on a GPU (published) and 4 on a CPU, whose cache holds no
            more, if None.
        device: a GPU if there is one, if None.
        dtype: 'bfloat16' computes the model in it (autocast).
        **settings: fields of `EverythingSettings`.
    """

    def __init__(
        self,
        weights: str,
        batch: int | None = None,
        device: str | None = None,
        dtype: str = 'float32',
        **settings: Any,
    ) -> None:
        _check_names(type(self), settings)
        try:
            self.everything = EverythingSettings(**settings)
        except ValueError as error:
            raise UserError(f'{self.name}: {error}. Correct it.') from error
        if dtype not in ('float32', 'bfloat16'):
            raise UserError(f"{self.name}: dtype is 'float32' or 'bfloat16', not {dtype!r}.")
        self.weights, self.dtype = str(weights), dtype
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.batch = batch or (4 if self.device.type == 'cpu' else 256)

    @abstractmethod
    def build(self) -> tuple[Prompter, torch.nn.Module]:
        """Read the weights: what answers points, and the module that holds them."""

    @cached_property
    def _built(self) -> tuple[Prompter, str]:
        prompter, module = self.build()
        return prompter, fingerprint(module.state_dict())[:16]

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.dtype == 'bfloat16' else None

    def settings(self) -> dict[str, Any]:
        prompter, content = self._built
        own = dict(weights=content, side=prompter.side, dtype=self.dtype)
        return {**asdict(self.everything), **own}

    def __call__(self, image: np.ndarray) -> PatchSet:
        return everything(self._built[0], image, self.everything, self.batch)


def _check_names(kind: type, settings: dict) -> None:
    unknown = [name for name in settings if name not in _SETTINGS]
    if unknown:
        own = [p for p in inspect.signature(kind).parameters if p != 'settings']
        raise UserError(
            f'{kind.__name__}: expected arguments among {", ".join([*own, *_SETTINGS])}, found '
            f'{unknown[0]!r}. Correct or remove it.'
        )


@MODELS.register_module()
class MobileSAMPatches(EverythingPatches):
    """MobileSAM from its published file, mobile_sam.pt.

    Args:
        weights: the file.
        side: of the square that the model sees, a multiple of 16; published is 1024.
        parts: configs of the model's parts, if they are not MobileSAM's.
        **more: see `EverythingPatches`.
    """

    name = 'mobile-sam'

    def __init__(
        self,
        weights: str = 'weights/mobile_sam.pt',
        side: int = 1024,
        parts: dict | None = None,
        **more: Any,
    ) -> None:
        super().__init__(weights, **more)
        if side < 16 or side % 16:
            raise UserError(f'{self.name}: side is a multiple of 16, not {side}. Give 1024.')
        self.side, self.parts = side, dict(parts or {})

    def build(self) -> tuple[Prompter, torch.nn.Module]:
        model = SAM.from_checkpoint(self.weights, **self.parts)
        model = model.requires_grad_(False).to(self.device)
        return SAMPrompter(model, self.side, self.autocast), model


@MODELS.register_module()
class SAMPatches(EverythingPatches):
    """SAM through transformers; the paper's is ViT-H.

    Args:
        weights: a name on huggingface.co, or a folder with such a model.
        **more: see `EverythingPatches`.
    """

    name = 'sam'

    def __init__(self, weights: str = 'facebook/sam-vit-huge', **more: Any) -> None:
        super().__init__(weights, **more)

    def build(self) -> tuple[Prompter, torch.nn.Module]:
        model = load_transformers('SamModel', self.weights).to(self.device)
        return SamPrompter(model, self.autocast), model


@MODELS.register_module()
class SAM2Patches(EverythingPatches):
    """SAM 2 through transformers, on single images.

    Args:
        weights: a name on huggingface.co, or a folder with such a model.
        **more: see `EverythingPatches`.
    """

    name = 'sam2'

    def __init__(self, weights: str = 'facebook/sam2.1-hiera-large', **more: Any) -> None:
        super().__init__(weights, **more)

    def build(self) -> tuple[Prompter, torch.nn.Module]:
        model = load_transformers('Sam2Model', self.weights).to(self.device)
        return Sam2Prompter(model, self.autocast), model
