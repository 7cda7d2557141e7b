"""SEEM: backbone, pixel decoder and decoder put together."""
from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput, Strokes
from mmprompt.registry import MODELS

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
STRIDE = 32


def _built(part: dict | nn.Module | None) -> nn.Module | None:
    return MODELS.build(part) if isinstance(part, dict) else part


@MODELS.register_module()
class SEEM(BaseModule):
    """The whole model; each part is a module or a config dict.

    Args:
        backbone: four maps at strides 4, 8, 16, 32 from a normalised image; `FocalNet` or any
            registered four-stage backbone whose channels fit the pixel decoder.
        pixel_decoder: maps -> `SEEMFeatures`.
        decoder: features and class embeddings -> `SEEMOutput`.
        text_encoder: class names -> embeddings; may be left out when embeddings are at hand.
        init_cfg: MMEngine initialisation config.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        pixel_decoder: dict | nn.Module,
        decoder: dict | nn.Module,
        text_encoder: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = _built(backbone)
        self.pixel_decoder = _built(pixel_decoder)
        self.decoder = _built(decoder)
        self.text_encoder = _built(text_encoder)

    @classmethod
    def from_checkpoint(
        cls, source: str | os.PathLike | Mapping[str, Tensor], text_encoder: bool = True
    ) -> SEEM:
        """Build the model that a checkpoint belongs to and load it, strictly.

        Args:
            source: a public SEEM checkpoint (`seem_focalt_v0.pt`, …), a base file of mmprompt,
                ``mmprompt://NAME``, or a flat state dict under the public names (copied).
            text_encoder: build the language side too.

        Returns:
            The model in eval mode, in the precision of the checkpoint.

        Raises:
            UserError: the message lists what does not fit.
        """
        from mmprompt.foundation.seem.checkpoint import load_seem

        return load_seem(source, text_encoder)

    def encode_image(self, x: Tensor) -> SEEMFeatures:
        """Normalised image (B, 3, H, W), zero-padded right and bottom to 32 -> features."""
        bottom, right = -x.shape[2] % STRIDE, -x.shape[3] % STRIDE
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return self.pixel_decoder(self.backbone(x))

    def decode(
        self,
        features: SEEMFeatures,
        semantic: Tensor,
        spatial: Tensor | dict | None = None,
        strokes: Strokes | Tensor | None = None,
        aux: bool = False,
    ) -> SEEMOutput:
        """Masks and classes; see `SEEMDecoder.forward`."""
        return self.decoder(features, semantic, spatial, strokes, aux)

    def forward(self, x: Tensor, semantic: Tensor, **kwargs) -> SEEMOutput:
        """`encode_image` followed by `decode`."""
        return self.decode(self.encode_image(x), semantic, **kwargs)

    def normalise(self, rgb: Tensor) -> Tensor:
        """RGB values 0-255, (..., 3, H, W) -> what the backbone expects."""
        mean = torch.tensor(PIXEL_MEAN, device=rgb.device).view(3, 1, 1)
        std = torch.tensor(PIXEL_STD, device=rgb.device).view(3, 1, 1)
        dtype = next(self.parameters()).dtype
        return (rgb.to(dtype) - mean.to(dtype)) / std.to(dtype)
