"""From patches to features: RoIAlign, MaskRoI, an MLP and self-attention (Sec. 3.2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmprompt.methods.samcp.features import ImageFeatures, RoIExtractor
from mmprompt.methods.samcp.layers import (
    MLP,
    Attention,
    Branch,
    FeedForward,
    sine_boxes,
    stacked,
)
from mmprompt.methods.samcp.structures import PatchFeatures
from mmprompt.registry import MODELS


@dataclass
class PatchBatch:
    """Patches of a batch in one frame with its images.

    Attributes:
        boxes: (B, N, 4) normalised.
        regions: (B, N, 7, 7) bool, cells of the box that the patch covers.
        valid: (B, N) bool; N is at least 1, so an image, or all, may be without any.
    """

    boxes: Tensor
    regions: Tensor
    valid: Tensor

    @classmethod
    def join(cls, patches: Sequence[InstanceData], sizes: Tensor) -> 'PatchBatch':
        """Batch what a sample holds as ``patches``.

        Args:
            patches: with ``bboxes`` (N_b, 4) in pixels of the input and ``regions`` (N_b, 7, 7).
            sizes: (B, 2) height and width of each image.
        """
        most = max(1, *(len(p.bboxes) for p in patches))
        boxes = stacked([p.bboxes.to(sizes) for p in patches], most)
        there = [torch.ones_like(p.bboxes[:, 0], dtype=torch.bool) for p in patches]
        return cls(
            boxes / sizes.flip(-1).repeat(1, 2)[:, None],
            stacked([p.regions for p in patches], most),
            stacked(there, most),
        )


class EncoderLayer(nn.Module):
    """Self-attention among patches and a feed-forward network."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attention = Branch(dim, Attention(dim, num_heads))
        self.feed_forward = Branch(dim, FeedForward(dim, ffn_dim))

    def forward(self, x: Tensor, position: Tensor, visible: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D); ``visible`` is (B, 1, 1, N)."""
        placed = x + position
        return self.feed_forward(self.self_attention(x, placed, placed, x, visible))


@MODELS.register_module()
class SAMCPPatchEncoder(nn.Module):
    """Feature vectors f of the patches.

    Args:
        in_channels: of the pyramid.
        dim: D.
        hidden: width inside the MLP behind RoIAlign.
        num_layers: of self-attention, omega in the paper; 0 is "w/o PE" of Table 5.
        num_heads, ffn_dim: of these layers.
        mask_roi: whether cells outside the patch are set to zero (MaskRoI, A.1).
        roi_size, strides, finest_scale: see `RoIExtractor`.
    """

    def __init__(
        self,
        in_channels: int = 256,
        dim: int = 256,
        hidden: int = 1024,
        num_layers: int = 6,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        mask_roi: bool = True,
        roi_size: int = 7,
        strides: Sequence[int] = (4, 8, 16, 32),
        finest_scale: int = 56,
    ) -> None:
        super().__init__()
        self.dim, self.mask_roi = dim, mask_roi
        self.extract = RoIExtractor(roi_size, strides, finest_scale)
        self.mlp = nn.Sequential(
            nn.Flatten(), *MLP(in_channels * roi_size**2, hidden, dim), nn.LayerNorm(dim)
        )
        self.position = MLP(2 * dim, dim, dim)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers)
        )

    def forward(self, features: ImageFeatures, patches: PatchBatch) -> PatchFeatures:
        """Encode the patches of a batch."""
        valid = patches.valid
        rois = self.extract(features, valid.nonzero()[:, 0], patches.boxes[valid])  # (V, D, 7, 7)
        if self.mask_roi:
            rois = rois * patches.regions[valid][:, None]
        content = self._placed(self.mlp(rois), valid)  # (B, N, D)
        position = self.position(sine_boxes(patches.boxes, self.dim))  # (B, N, D)
        visible = valid[:, None, None]  # (B, 1, 1, N)
        for layer in self.layers:
            content = layer(content, position, visible)
        return PatchFeatures(content, position, patches.boxes, valid)

    def of_boxes(self, features: ImageFeatures, boxes: Tensor, valid: Tensor) -> Tensor:
        """Features of whole boxes by the same MLP, for query enhancement (A.1).

        Args:
            boxes: (B, M, 4) normalised.
            valid: (B, M) bool.

        Returns:
            (B, M, D), zero where there is no box.
        """
        keys = torch.cat([valid.nonzero()[:, :1].to(boxes), boxes[valid]], dim=1)  # (V, 5)
        # Queries that agree on their patches have one box: it is read once.
        keys, which = keys.unique(dim=0, return_inverse=True)  # (U, 5), (V,)
        rois = self.extract(features, keys[:, 0].long(), keys[:, 1:])
        return self._placed(self.mlp(rois)[which], valid)

    def _placed(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Put rows (V, D) where ``valid`` is True, zeros elsewhere: (B, M, D)."""
        return rows.new_zeros(*valid.shape, self.dim).index_put((valid,), rows)
