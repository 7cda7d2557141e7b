"""The unified affinity decoder: queries gather the patches that belong to them (Sec. 3.2.2, A.1).

Each layer: self-attention among queries; affinity A of queries to patches, added to that of the
layers before (affinity refinement, Algorithm 1); cross-attention to those patches alone that the
layer before, or this one, gave a high affinity (dynamic cross-attention); feed-forward; and the
mean with the RoI feature of the box around the patches of high affinity (query enhancement).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.image_attention import ImageAttention
from mmprompt.methods.samcp.layers import (
    MLP,
    Attention,
    Branch,
    FeedForward,
    Linear,
    sine_boxes,
)
from mmprompt.methods.samcp.merging import boxes_around, high_affinity
from mmprompt.methods.samcp.queries import QuerySet
from mmprompt.methods.samcp.structures import DecoderOutput, PatchFeatures
from mmprompt.registry import MODELS

PRIOR_LOGIT = -math.log(99)  # of the probability 0.01 at which focal losses start
Enhance = Callable[[Tensor, Tensor], Tensor]


class Residual(nn.Module):
    """x + FFN(x): the projection of the research code before the similarity."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.feed_forward = FeedForward(dim, ffn_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return x + self.feed_forward(x)


class HeadMLP(nn.Sequential):
    """An MLP over the heads of every pair, from eta similarities to one (Algorithm 1, line 6).

    Args:
        num_heads: eta.
        rectified: whether negative similarities are cut off first.
    """

    def __init__(self, num_heads: int, rectified: bool) -> None:
        layers: list[nn.Module] = []
        for outputs in (num_heads, num_heads, 1):
            layers += [nn.ReLU(), PairLinear(num_heads, outputs)]
        super().__init__(*layers if rectified else layers[1:])
        nn.init.zeros_(self[-1].weight)
        nn.init.zeros_(self[-1].bias)


class PairLinear(nn.Linear):
    """A linear layer over dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, eta, P) -> (B, eta', P); as a product of matrices, nothing is turned or copied."""
        weight = self.weight.expand(len(x), -1, -1)
        return torch.baddbmm(self.bias[:, None].to(x), weight.to(x), x)


class AffinitySimilarity(nn.Module):
    """Algorithm 1, lines 1 to 8: one logit for each query and patch.

    Args:
        dim: D.
        num_heads: eta.
        ffn_dim: width inside the projections; 0 for a single fully connected layer.
        rectified: whether negative similarities are cut off before the MLP over heads.
        prior: the logit b_0 at the start; the MLP starts at 0, so that all begin there.
    """

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, rectified: bool, prior: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key = (
            Residual(dim, ffn_dim) if ffn_dim else Linear(dim, dim) for _ in range(2)
        )
        self.mlp = HeadMLP(num_heads, rectified)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.patch_bias = nn.Parameter(torch.zeros(dim))
        self.prior = nn.Parameter(torch.full((), prior))

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """(B, M, D) and (B, N, D) -> (B, M, N), at least float32."""
        queries, keys = self.query(queries), self.key(patches)
        if torch.is_grad_enabled():  # eta numbers per pair, several times over: made again
            pairs = checkpoint(
                self._pairs, queries, keys, use_reentrant=False, preserve_rng_state=False
            )
        else:
            pairs = self._pairs(queries, keys)
        bias = at_least_float(keys @ self.patch_bias.to(keys))[:, None] + self.prior  # (B, 1, N)
        return pairs * torch.exp(-self.log_scale) + bias

    def _pairs(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Projected (B, M, D) and (B, N, D) -> (B, M, N), before scale and bias."""
        heads = [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (queries, keys)]
        scaled = heads[0] * heads[0].shape[-1] ** -0.5  # (B, eta, M, D / eta)
        similarity = scaled @ heads[1].transpose(-1, -2)  # (B, eta, M, N)
        pairs = at_least_float(self.mlp(similarity.flatten(2)))  # (B, 1, M N)
        return pairs.view(len(keys), -1, keys.shape[1])


class DecoderLayer(nn.Module):
    """One round of affinity propagation.

    Args:
        dim, num_heads, ffn_dim: as of `SAMCPAffinityDecoder`.
        affinity: gives the logits of this layer.
        cross: attention to patches, or `ImageAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        affinity: AffinitySimilarity,
        cross: nn.Module,
    ) -> None:
        super().__init__()
        self.self_attention = Branch(dim, Attention(dim, num_heads))
        self.affinity = affinity
        self.cross_attention = Branch(dim, cross)
        self.feed_forward = Branch(dim, FeedForward(dim, ffn_dim))

    def attend_queries(self, x: Tensor, position: Tensor, visible: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D); ``visible`` is (B, M, M)."""
        placed = x + position
        return self.self_attention(x, placed, placed, x, visible[:, None])

    def attend_patches(
        self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, visible: Tensor
    ) -> Tensor:
        """(B, M, D) -> (B, M, D); keys and values (B, N, D), ``visible`` (B, M or 1, N)."""
        x = self.cross_attention(x, x + position, keys, values, visible[:, None])
        return self.feed_forward(x)

    def attend_image(
        self, x: Tensor, position: Tensor, boxes: Tensor, features: ImageFeatures
    ) -> Tensor:
        """(B, M, D) -> (B, M, D), by samples of the image around normalised boxes (B, M, 4)."""
        return self.feed_forward(self.cross_attention(x, x + position, boxes, features))


@MODELS.register_module()
class SAMCPAffinityDecoder(nn.Module):
    """Layers of affinity propagation over patches.

    Args:
        dim: D.
        num_layers: L.
        num_heads: of attention and of the affinity (eta).
        ffn_dim: of the feed-forward networks.
        affinity_refinement: whether logits are added up over layers (Algorithm 1, line 11).
        query_enhancement: whether a query is averaged with the RoI feature of its box.
        dynamic_attention: 'patch', cross-attention to patches of high affinity; 'image',
            deformable attention to the image around the query's box ("image-level" of Table 5);
            None, to all patches.
        mask_rule: what a high affinity is, see `high_affinity`.
        mask_from: the cross-attention of a layer is masked by the affinity of the 'previous' one,
            the first by none, or by its 'own'; read with `dynamic_attention='patch'`.
        prior: 'once': b_0 stands in the first layer alone, so that every layer starts at a score
            of 0.01; 'every_layer': in each, so that the sum starts at ever smaller scores.
        affinity_ffn_dim: 0: fc^Q and fc^K are one fully connected layer each; else a residual
            feed-forward network of that width.
        affinity_rectified: whether negative similarities are cut off before the MLP over heads.
        in_channels, num_levels, num_points: of the pyramid that 'image' reads, and at how many
            points of each level.

    Raises:
        ValueError: another value of `dynamic_attention`, `mask_rule`, `mask_from` or `prior`.
    """

    def __init__(
        self,
        dim: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        affinity_refinement: bool = True,
        query_enhancement: bool = True,
        dynamic_attention: Literal['patch', 'image'] | None = 'patch',
        mask_rule: Literal['min-max', 'threshold'] = 'min-max',
        mask_from: Literal['previous', 'own'] = 'previous',
        prior: Literal['once', 'every_layer'] = 'once',
        affinity_ffn_dim: int = 0,
        affinity_rectified: bool = False,
        in_channels: int = 256,
        num_levels: int = 4,
        num_points: int = 4,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ('dynamic_attention', dynamic_attention, ('patch', 'image', None)),
            ('mask_rule', mask_rule, ('min-max', 'threshold')),
            ('mask_from', mask_from, ('previous', 'own')),
            ('prior', prior, ('once', 'every_layer')),
        ):
            if value not in known:
                raise ValueError(f'{name}: expected one of {known}, found {value!r}.')
        self.dim = dim
        self.affinity_refinement = affinity_refinement
        self.query_enhancement = query_enhancement
        self.dynamic_attention = dynamic_attention
        self.mask_rule, self.mask_from = mask_rule, mask_from
        self.position = MLP(2 * dim, dim, dim)
        self.layers = nn.ModuleList()
        for index in range(num_layers):
            first = index == 0 or prior == 'every_layer' or not affinity_refinement
            affinity = AffinitySimilarity(
                dim, num_heads, affinity_ffn_dim, affinity_rectified, PRIOR_LOGIT if first else 0.0
            )
            cross = (
                ImageAttention(dim, num_heads, in_channels, num_levels, num_points)
                if dynamic_attention == 'image'
                else Attention(dim, num_heads)
            )
            self.layers.append(DecoderLayer(dim, num_heads, ffn_dim, affinity, cross))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, queries: QuerySet, patches: PatchFeatures, features: ImageFeatures, enhance: Enhance
    ) -> list[DecoderOutput]:
        """Propagate.

        Args:
            queries: of all kinds.
            patches: keys and values.
            features: the image, for `dynamic_attention='image'`.
            enhance: (boxes (B, M, 4), valid (B, M)) -> RoI features (B, M, D).

        Returns:
            One answer per layer.
        """
        keys = patches.content + patches.position  # (B, N, D)
        x, boxes, affinity = queries.content, queries.boxes, None
        whole = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])  # of a query without patches
        visible = patches.valid[:, None]  # (B, 1, N): A is 1 everywhere at first
        outputs = []
        for layer in self.layers:
            position = self.position(sine_boxes(boxes, self.dim))  # (B, M, D)
            x = layer.attend_queries(x, position, queries.visible)

            logits = layer.affinity(x + position, keys)  # (B, M, N)
            if self.affinity_refinement and affinity is not None:
                logits = logits + affinity
            affinity = logits
            high = high_affinity(affinity, patches.valid, self.mask_rule)  # (B, M, N)

            masked = self.dynamic_attention == 'patch'
            if masked and self.mask_from == 'own':
                visible = high
            if self.dynamic_attention == 'image':
                x = layer.attend_image(x, position, boxes, features)
            else:
                x = layer.attend_patches(x, position, keys, patches.content, visible)
            if masked:
                visible = high
            boxes = boxes_around(patches.boxes, high, whole)
            if self.query_enhancement:
                x = (x + enhance(boxes, queries.valid)) / 2
            outputs.append(DecoderOutput(self.norm(x), affinity, boxes))
        return outputs
