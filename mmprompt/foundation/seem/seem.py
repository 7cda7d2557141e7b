"""SEEM: backbone, pixel decoder and decoder put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import STRIDE, padded, places
from mmprompt.common.upsampling import UpsampledMaps, upsample_masks
from mmprompt.foundation.seem import inputs
from mmprompt.foundation.seem.checkpoint import load_seem
from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput, Strokes
from mmprompt.registry import MODELS

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
BATCH_PIXELS = 1 << 22  # padded pixels that `segment` sends through the network at once


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
            text_encoder: build the language side too. If a public checkpoint has nothing of it, the
                model comes without it and a warning says so; a part of it is an error.

        Returns:
            The model in eval mode, in float32: what is stored in less is widened, and a checkpoint
            in double stays in double.

        Raises:
            UserError: the message lists what does not fit. A public checkpoint with fewer layers
                than the published ones of its widths is refused, too: it was cut.
        """
        return load_seem(cls, source, text_encoder)

    def encode_image(self, x: Tensor) -> SEEMFeatures:
        """Normalised image (B, 3, H, W), zero-padded right and bottom to 32 -> features."""
        return self.pixel_decoder(self.backbone(padded(x)))

    def decode(
        self,
        features: SEEMFeatures,
        semantic: Tensor,
        spatial: Tensor | dict | None = None,
        strokes: Strokes | Tensor | None = None,
        aux: bool = True,
    ) -> SEEMOutput:
        """Masks and classes, earlier predictions in `aux`; see `SEEMDecoder.forward`."""
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
        classes: Tensor | np.ndarray | Sequence[str | Sequence[str]],
        templates: Sequence[str] | None = None,
    ) -> Tensor:
        """Class embeddings (C+1, D), from names unless they are embeddings already.

        Args:
            classes: names, lists of synonyms, or embeddings.
            templates: sentences around the names; None means SEEM's 81.

        Raises:
            UserError: names were given to a model without text encoder.
        """
        classes = inputs.read_classes(classes)
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
        rgb: inputs.Picture | Sequence[inputs.Picture],
        task: str = 'semantic',
        classes: Tensor | np.ndarray | Sequence[str | Sequence[str]] = (),
        things: Sequence[int] = (),
        short_side: int | None = None,
        output_size: tuple[int, int] | None = None,
        spatial: Tensor | dict | None = None,
        strokes: Strokes | Tensor | Sequence[Strokes | Tensor | None] | None = None,
        templates: Sequence[str] | None = None,
        **thresholds,
    ):
        """One image, or a list of them, to label maps, panoptic maps, instances or stroke masks.

        Answers are made a tile at a time: with `short_side`, large images take little more memory
        than their answers. Without it the network runs at the full size: about 0.9 kB per pixel
        with Focal-T in float32, some 18 GB for 4000 x 5000. Images of a list may have any sizes:
        those of one padded size run together, and no result depends on the other images.

        Args:
            rgb: values 0-255: a tensor (3, H, W), an array (H, W, 3), a PIL image, or a list of
                those.
            task: 'semantic', 'panoptic', 'instance', or 'stroke'.
            classes: names, or embeddings (C+1, D), no-object row last; not needed for strokes.
            things: indices of countable classes; for instances, empty means all.
            short_side: resize so that the shorter side has this many pixels (512 in SSPrompt), the
                longer one at most 8 times as many; None keeps the size.
            output_size: (H, W) of the answers; None means the size of each image.
            spatial: replacement rows for all images, see `decode`.
            strokes: masks (H, W) or (1, H, W) at the size of the image, on which the user draws, or
                at the padded size of the resized image: one `Strokes`, a dict with its fields, a
                bare positive mask, or for a list of images a list of those. A pixel of the resized
                image counts as drawn on if any pixel under it was, so that thin strokes survive.
            templates: sentences around the names; None means SEEM's 81.
            thresholds: 'panoptic': `score_threshold`, `overlap_threshold`; 'instance': `top_k`; see
                `mask_merge`.

        Returns:
            'semantic': (H, W) int64; 'panoptic': `PanopticResult`; 'instance': `InstanceResult`;
            'stroke': (H, W) bool. For a list, a list in its order.

        Raises:
            UserError: an argument cannot be used; it is named, with what was expected.
        """
        single = not isinstance(rgb, (list, tuple))
        images = [inputs.read_image(image) for image in ([rgb] if single else rgb)]
        drawn = [strokes] if single else inputs.one_each(strokes, len(images))
        inputs.check_task(task, drawn)
        semantic = self._semantic(task, classes, templates)
        things = inputs.check_options(task, things, thresholds, len(semantic) - 1)
        sizes = [inputs.resized_size(image.shape[1:], short_side) for image in images]
        shapes = [inputs.check_size(output_size or image.shape[1:]) for image in images]
        drawn = [inputs.place_strokes(*each) for each in zip(drawn, images, sizes)]
        results: list = [None] * len(images)
        for index, out in self._outputs(images, sizes, semantic, spatial, drawn):
            masks = out.strokes.answer if task == 'stroke' else out.pred_masks
            maps = upsample_masks(masks[0], sizes[index], shapes[index])
            results[index] = answer(task, out.pred_logits[0], maps, things, thresholds)
        return results[0] if single else results

    def _outputs(
        self,
        images: list[Tensor],
        sizes: list[tuple[int, int]],
        semantic: Tensor,
        spatial: Tensor | dict | None,
        drawn: list[Strokes | None],
    ) -> Iterator[tuple[int, SEEMOutput]]:
        """(index, prediction) of every image, brought to its size; see `segment`."""
        for part in batches(sizes, drawn):
            batch = [padded(self.normalise(inputs.resize_image(images[i], sizes[i]))) for i in part]
            hints = inputs.stack_strokes([drawn[i] for i in part], batch[0].device)
            features = self.encode_image(torch.stack(batch))
            out = self.decode(features, semantic, spatial, hints, aux=False)
            for place, index in enumerate(part):
                yield index, out.of_image(place)

    def _semantic(self, task: str, classes, templates: Sequence[str] | None) -> Tensor:
        """(C+1, D) in the precision of the model; strokes need none."""
        like, classes = self.decoder.class_embed, inputs.read_classes(classes)
        if isinstance(classes, Tensor):
            return inputs.check_classes(classes, like.shape[1]).to(like)
        if task == 'stroke' and not len(classes):
            return like.new_zeros(2, like.shape[1])
        inputs.check_names(classes)
        return self.embed_classes(classes, templates).to(like)

    def semantic_scores(
        self, out: SEEMOutput, size: tuple[int, int], output_size: tuple[int, int]
    ) -> Tensor:
        """Class scores (B, C, H, W) at `output_size`.

        Args:
            out: a prediction.
            size: (H, W) of the image before padding.
            output_size: (H, W) of the answer.
        """
        batch, classes = len(out.pred_logits), out.pred_logits.shape[2] - 1
        scores = out.pred_masks.new_empty((batch, classes, *output_size))
        for whole, logits, masks in zip(scores, out.pred_logits, out.pred_masks):
            maps = upsample_masks(masks, size, output_size)
            for rows, columns, values in mask_merge.semantic_tiles(logits, maps):
                whole[:, rows, columns] = values
        return scores


def batches(sizes: list[tuple[int, int]], drawn: list[Strokes | None]) -> list[list[int]]:
    """Places of images that can run together: of one padded size and hinted at alike."""
    keys = []
    for (height, width), hint in zip(sizes, drawn):
        parts = None
        if hint is not None:
            previous = None if hint.previous is None else hint.previous.shape
            parts = (hint.negative is None, previous)
        keys.append((-(-height // STRIDE), -(-width // STRIDE), parts))
    batches = []
    for part in places(keys):
        rows, columns, _ = keys[part[0]]
        step = max(1, BATCH_PIXELS // (rows * columns * STRIDE**2))
        batches += [part[start : start + step] for start in range(0, len(part), step)]
    return batches


def answer(task: str, logits: Tensor, maps: UpsampledMaps, things: tuple, thresholds: dict):
    """One image's answer; see `SEEM.segment`."""
    if task == 'stroke':
        return maps.dense()[0] > 0
    if task == 'semantic':
        return mask_merge.semantic(logits, maps)
    if task == 'panoptic':
        return mask_merge.panoptic(logits, maps, things, **thresholds)
    return mask_merge.instances(logits, maps, thing_classes=things or None, **thresholds)
