"""SAM as one module: an image encoder, a prompt encoder and a mask decoder.

Notation: N prompts, (h, w) cells at stride 16, D channels, M masks of a prompt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmprompt.foundation.sam.checkpoint import read_sam
from mmprompt.foundation.sam.mask_decoder import SAMMasks
from mmprompt.foundation.sam.prompt_encoder import FOREGROUND
from mmprompt.foundation.seem.checkpoint import check_fit
from mmprompt.registry import MODELS


def point_grid(side: int, area: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Centres of side x side equal cells of an image, (side * side, 2), row by row.

    Args:
        side: points in a row and in a column.
        area: (height, width) of the image as shares of the canvas, whose side is the long one.

    Returns:
        Shares (x, y) of the canvas, as `SAMPromptEncoder` takes them.
    """
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres * area[0], centres * area[1], indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)


@MODELS.register_module()
class SAM(BaseModule):
    """Promptable masks; the parts are built from their configs.

    Args:
        image_encoder: config of `SAMImageEncoder`; MobileSAM's if None.
        prompt_encoder: config of `SAMPromptEncoder`; SAM's if None.
        mask_decoder: config of `SAMMaskDecoder`; SAM's if None.
    """

    def __init__(
        self,
        image_encoder: dict | None = None,
        prompt_encoder: dict | None = None,
        mask_decoder: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.image_encoder = MODELS.build(image_encoder or dict(type='mmprompt.SAMImageEncoder'))
        self.prompt_encoder = MODELS.build(prompt_encoder or dict(type='mmprompt.SAMPromptEncoder'))
        self.mask_decoder = MODELS.build(mask_decoder or dict(type='mmprompt.SAMMaskDecoder'))

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, **parts) -> SAM:
        """Build a SAM and fill it, strictly, from MobileSAM's file.

        Args:
            path: the checkpoint.
            **parts: configs of the parts, if they are not MobileSAM's.

        Raises:
            UserError: it is missing or damaged, or tensors are missing, extra or of another shape.
        """
        tensors = read_sam(path)
        model = cls(**parts)
        check_fit(model.state_dict(), tensors, str(path))
        model.load_state_dict(tensors)
        return model.eval()

    def encode(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of 16 -> embeddings (B, D, h, w)."""
        return self.image_encoder(images)

    def masks(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> SAMMasks:
        """Masks of one image under N prompts, all M of each prompt.

        Args:
            embedding: (D, h, w).
            points: (N, P, 2) shares (x, y) of the canvas.
            labels: (N, P), see `SAMPromptEncoder.points`; foreground if None. The token that SAM
                adds where there is no box is added here.
            masks: (N, 1, 4h, 4w) logits of an earlier answer.
        """
        if labels is None:
            labels = torch.full(points.shape[:-1], FOREGROUND, device=points.device)
        tokens = self.prompt_encoder.points(points, labels)  # (N, P, D)
        if not (labels > FOREGROUND).any():
            tokens = self.prompt_encoder.closed(tokens)
        return self.mask_decoder(
            embedding,
            self.prompt_encoder.cells(embedding.shape[-2:]),
            tokens,
            self.prompt_encoder.dense(masks),
        )

    def masks_of_grid(
        self,
        embedding: Tensor,
        side: int,
        area: tuple[float, float] = (1.0, 1.0),
        chunk: int = 64,
    ) -> Iterator[SAMMasks]:
        """`masks` of every point of a grid, `chunk` points at a time.

        Args:
            embedding: (D, h, w).
            side, area: see `point_grid`.
            chunk: how many points are decoded at once; it decides the memory that is needed.
        """
        for points in point_grid(side, area).to(embedding).split(chunk):
            yield self.masks(embedding, points[:, None])
