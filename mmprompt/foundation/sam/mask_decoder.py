"""SAM's mask decoder: a two-way transformer between prompt tokens and the image's cells.

Parameter names are SAM's. One image is decoded under N prompts at once; what does not depend on the
prompt is computed once and broadcast.

Notation: N prompts, P tokens each, (h, w) cells, L = h * w, D channels, M masks of a prompt.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.foundation.sam.image_encoder import LayerNorm2d
from mmprompt.registry import MODELS


class SAMMasks(NamedTuple):
    """Answers to N prompts; the first mask is the one for unambiguous prompts."""

    logits: Tensor  # (N, M, 4h, 4w)
    quality: Tensor  # (N, M) predicted IoU


class _Attention(nn.Module):
    """Multi-head attention in `dim // reduction` channels."""

    def __init__(self, dim: int, num_heads: int, reduction: int = 1) -> None:
        super().__init__()
        inner = dim // reduction
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N or 1, A, D), twice (N or 1, L, D) -> (N, A, D)."""
        rows = max(len(q), len(k))
        q, k, v = (
            f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).expand(rows, -1, -1, -1)
            for f, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )  # (N, heads, tokens, d)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    """Linear maps with ReLU between them."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(dims, dims[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dims[0]) -> (..., dims[-1])."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x).relu())


class _TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, feed-forward, image to tokens; post-norm."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, first: bool) -> None:
        super().__init__()
        self.self_attn = _Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = _Attention(dim, num_heads, reduction=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _FeedForward(dim, ffn_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = _Attention(dim, num_heads, reduction=2)
        self.norm4 = nn.LayerNorm(dim)
        self.first = first

    def forward(
        self, tokens: Tensor, cells: Tensor, start: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, D) and cells (N or 1, L, D), each with what marks its place."""
        if self.first:  # the tokens are their own places, and no residual is added
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            q = tokens + start
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens))
        k = cells + places
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + start, k, cells))
        tokens = self.norm3(tokens + self.mlp(tokens))
        cells = cells + self.cross_attn_image_to_token(k, tokens + start, tokens)
        return tokens, self.norm4(cells)


class TwoWayTransformer(nn.Module):
    """`num_layers` blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _TwoWayBlock(dim, num_heads, ffn_dim, first=i == 0) for i in range(num_layers)
        )
        self.final_attn_token_to_image = _Attention(dim, num_heads, reduction=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, start: Tensor, cells: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, D), cells (N or 1, L, D), places (1, L, D) -> tokens and cells."""
        tokens = start
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, start, places)
        seen = self.final_attn_token_to_image(tokens + start, cells + places, cells)
        return self.norm_final_attn(tokens + seen), cells


@MODELS.register_module()
class SAMMaskDecoder(BaseModule):
    """Image embedding and prompt tokens -> masks with their predicted quality.

    Args:
        dim: D, a multiple of 8.
        num_layers: of the two-way transformer.
        num_heads: its heads.
        ffn_dim: inner width of its feed-forward.
        num_masks: M; one for unambiguous prompts, the others for whole, part and sub-part.
    """

    def __init__(
        self,
        dim: int = 256,
        num_layers: int = 2,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        num_masks: int = 4,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.dim, self.num_masks = dim, num_masks
        self.transformer = TwoWayTransformer(dim, num_heads, ffn_dim, num_layers)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            _MLP(dim, dim, dim, dim // 8) for _ in range(num_masks)
        )
        self.iou_prediction_head = _MLP(dim, dim, dim, num_masks)

    def forward(
        self,
        embedding: Tensor,
        places: Tensor,
        tokens: Tensor,
        dense: Tensor,
        which: slice = slice(None),
    ) -> SAMMasks:
        """Masks of one image under N prompts.

        Args:
            embedding: (D, h, w) of the image encoder.
            places: (D, h, w), `SAMPromptEncoder.cells`.
            tokens: (N, P, D) of the prompts.
            dense: (N or 1, D, h or 1, w or 1), `SAMPromptEncoder.dense`.
            which: the masks of a prompt that are wanted; all M if not given.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1)  # (N, 1+M+P, D)
        cells = (embedding + dense).flatten(2).transpose(1, 2)  # (N or 1, L, D)
        tokens, cells = self.transformer(tokens, cells, places.flatten(1).t()[None])
        answers = tokens[:, 1 : 1 + self.num_masks].unbind(1)[which]
        vectors = torch.stack(
            [mlp(x) for mlp, x in zip(self.output_hypernetworks_mlps[which], answers)], dim=1
        )  # (N, M, D/8)
        logits = self.draw(cells, vectors, embedding.shape[-2:])
        return SAMMasks(logits, self.iou_prediction_head(tokens[:, 0])[:, which])

    def draw(self, cells: Tensor, vectors: Tensor, size: tuple[int, int]) -> Tensor:
        """Products of vectors (N, M, D/8) with cells (N, L, D), split into 4 x 4 each.

        Args:
            cells: of the transformer.
            vectors: one of each mask, from its token.
            size: (h, w).

        Returns:
            Logits (N, M, 4h, 4w).

        `output_upscaling` never overlaps: each of its convolutions is one linear map of a cell to
        its four quarters. Taken so, channels stay last, and only masks are put in order of space.
        """
        first, norm, act, second, _ = self.output_upscaling
        x = _quarters(first, cells)  # (N, L, 4, D/4)
        x = act(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
        x = act(_quarters(second, x))  # (N, L, 4, 4, D/8)
        # No einsum: torch 2.1 gives wrong gradients for it where M is 1, on a CPU.
        masks = torch.matmul(x.flatten(1, 3), vectors.transpose(1, 2)).transpose(1, 2)
        masks = masks.unflatten(2, (*size, 2, 2, 2, 2))
        # (N, M, h, w, 2, 2, 2, 2): cell, quarter, quarter of the quarter; rows before columns.
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5, 7).flatten(2, 4)


def _quarters(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(..., D) -> (..., 4, E): what a transposed 2 x 2 convolution of stride 2 makes of a cell."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * E, D)
    return F.linear(x, weight, conv.bias.repeat(4)).unflatten(-1, (4, -1))
