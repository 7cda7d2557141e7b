"""SEEM: backbone, pixel decoder and decoder put together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.checkpoint import load_seem
from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput, Strokes
from mmprompt.registry import MODELS

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
STRIDE = 32
TASKS = ('semantic', 'panoptic', 'instance', 'stroke')
CHUNK = 1 << 26  # mask values that are upsampled at once


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
            The model in eval mode, in float32: what is stored in less is widened, and a checkpoint
            in double stays in double.

        Raises:
            UserError: the message lists what does not fit.
        """
        return load_seem(cls, source, text_encoder)

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

    # ---------------------------------------------------------------- from pixels to answers
    def normalise(self, rgb: Tensor) -> Tensor:
        """RGB values 0-255, (..., 3, H, W) -> what the backbone expects, in its precision."""
        like = next(self.parameters())
        mean, std = (like.new_tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        return (rgb.to(like) - mean) / std

    def embed_classes(
        self,
        classes: Tensor | Sequence[str | Sequence[str]],
        templates: Sequence[str] | None = None,
    ) -> Tensor:
        """Class embeddings (C+1, D), from names unless they are embeddings already.

        Args:
            classes: names, lists of synonyms, or embeddings.
            templates: sentences around the names; None means SEEM's 81.

        Raises:
            UserError: names were given to a model without text encoder.
        """
        if isinstance(classes, Tensor):
            return classes
        if self.text_encoder is None:
            raise UserError(
                'Class names were given, but this SEEM has no text encoder. Give the embeddings '
                '(C+1, D), no-object row last, or build the model with its text encoder.'
            )
        return self.text_encoder.class_embeddings(classes, templates)

    @torch.no_grad()
    def segment(
        self,
        rgb: Tensor | np.ndarray,
        task: str = 'semantic',
        classes: Tensor | Sequence[str | Sequence[str]] = (),
        things: Sequence[int] = (),
        short_side: int | None = None,
        output_size: tuple[int, int] | None = None,
        spatial: Tensor | dict | None = None,
        strokes: Strokes | None = None,
        templates: Sequence[str] | None = None,
        **thresholds,
    ):
        """One image to its label map, panoptic map, instances or stroke mask.

        Args:
            rgb: values 0-255: a tensor (3, H, W), or an array (H, W, 3).
            task: 'semantic', 'panoptic', 'instance', or 'stroke'.
            classes: names, or embeddings (C+1, D) with the no-object row last.
            things: indices of countable classes; for instances, empty means all.
            short_side: resize so that the shorter side has this many pixels (512 in SSPrompt);
                None keeps the size.
            output_size: (H, W) of the answer; None means the size of `rgb`.
            spatial: replacement rows, see `decode`.
            strokes: masks at the padded size of the resized image.
            templates: sentences around the names; None means SEEM's 81.
            thresholds: further arguments of `mask_merge.panoptic` or `mask_merge.instances`.

        Returns:
            'semantic': (H, W) int64; 'panoptic': `PanopticResult`; 'instance': `InstanceResult`;
            'stroke': (H, W) bool.
        """
        if task not in TASKS:
            raise UserError(f'SEEM.segment: task must be one of {TASKS}, found {task!r}.')
        if task == 'stroke' and strokes is None:
            raise UserError("SEEM.segment: task 'stroke' needs strokes.")
        if not isinstance(rgb, Tensor):
            rgb = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
        output_size = tuple(output_size or rgb.shape[1:])
        x = self.normalise(_resized(rgb[None], short_side))
        size = tuple(x.shape[2:])
        semantic = self.embed_classes(classes, templates).to(x)
        out = self.decode(self.encode_image(x), semantic, spatial, strokes)
        if task == 'stroke':
            return upsample_masks(out.strokes.answer, size, output_size)[0, 0] > 0
        if task == 'semantic':
            return self.semantic_scores(out, size, output_size)[0].argmax(0)
        masks = upsample_masks(out.pred_masks, size, output_size)[0]
        if task == 'panoptic':
            return mask_merge.panoptic(out.pred_logits[0], masks, things, **thresholds)
        return mask_merge.instances(
            out.pred_logits[0], masks, thing_classes=things or None, **thresholds
        )

    def semantic_scores(
        self, out: SEEMOutput, size: tuple[int, int], output_size: tuple[int, int]
    ) -> Tensor:
        """Class scores (B, C, H, W) at `output_size`.

        Scores add up over queries, so large answers are built from a few queries at a time.

        Args:
            out: a prediction.
            size: (H, W) of the image before padding.
            output_size: (H, W) of the answer.
        """
        masks = out.pred_masks
        step = max(1, CHUNK // (masks.shape[0] * output_size[0] * output_size[1]))
        scores = 0
        for start in range(0, masks.shape[1], step):
            part = slice(start, start + step)
            large = upsample_masks(masks[:, part], size, output_size)
            scores = scores + mask_merge.semantic_scores(out.pred_logits[:, part], large)
        return scores


def upsample_masks(
    masks: Tensor, size: tuple[int, int], output_size: tuple[int, int] | None = None
) -> Tensor:
    """Mask logits at stride 4 -> at the size of the answer.

    Bilinear to the padded input size, cut to the image, then bicubic with antialiasing.

    Args:
        masks: (B, Q, h, w).
        size: (H, W) of the image before padding.
        output_size: (H, W) of the answer; None means `size`.
    """
    padded = [4 * side for side in masks.shape[2:]]
    masks = F.interpolate(masks, size=padded, mode='bilinear', align_corners=False)
    masks = masks[:, :, : size[0], : size[1]]
    if output_size is None:
        output_size = size
    return F.interpolate(
        masks, size=tuple(output_size), mode='bicubic', align_corners=False, antialias=True
    )


def _resized(images: Tensor, short_side: int | None) -> Tensor:
    """(B, 3, H, W) with the shorter side at `short_side` pixels, values kept in 0-255."""
    if short_side is None:
        return images
    height, width = images.shape[2:]
    scale = short_side / min(height, width)
    size = (round(height * scale), round(width * scale))
    images = images if images.is_floating_point() else images.float()
    images = F.interpolate(images, size=size, mode='bicubic', align_corners=False, antialias=True)
    return images.clamp(0, 255)
