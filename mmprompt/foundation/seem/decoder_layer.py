"""One layer of SEEM's decoder, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmprompt.foundation.seem.layers import Attention, FeedForward

INITIAL_BRANCH = 0.3  # gain of the residual branches before training


@dataclass
class Level:
    """One image map as attention reads it.

    Attributes:
        key: (B, H*W, D) map + level embedding + sine position.
        value: (B, H*W, D) map + level embedding.
        size: (H, W).
        mask_features: (B, Dm, H*W) mask features resized to this map; no gradient.
    """

    key: Tensor
    value: Tensor
    size: tuple[int, int]
    mask_features: Tensor


@dataclass
class Start:
    """Queries that attend to one another and to no others, as they enter the first layer.

    Object queries are one such group. With strokes their copies, followed by the memory prompts if
    any, are another.

    Attributes:
        query: (B, L, D) content.
        position: (B, L, D).
        heads: how many leading rows have a mask of their own; memory prompts have none.
        tokens: per map (B, T, D) further keys of the self-attention, or None.
        self_allowed: boolean (B, 1, L, L+T), or None for all.
        memory: (B, 1, h, w) mask logits where the memory prompts look, or None.
    """

    query: Tensor
    position: Tensor
    heads: int
    tokens: list[Tensor] | None = None
    self_allowed: Tensor | None = None
    memory: Tensor | None = None


class DecoderLayer(nn.Module):
    """Cross-attention to one map, self-attention, feed-forward; each with a LayerNorm after."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.cross_attn = Attention(dim, num_heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
        # All queries read nearly the same average at first. At full strength that common part
        # outgrows what tells them apart, and training from scratch can end with equal queries.
        with torch.no_grad():
            for part in (self.cross_attn.out_proj, self.self_attn.out_proj, self.ffn.linear2):
                part.weight.mul_(INITIAL_BRANCH)

    def see(self, level: Level) -> tuple[Tensor, Tensor]:
        """The image map as `read_map` reads it, made once for all groups of queries."""
        return self.cross_attn.read(level.key, level.value)

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        seen: tuple[Tensor, Tensor],
        cross_allowed: Tensor,
        tokens: Tensor | None,
        self_allowed: Tensor | None,
    ) -> Tensor:
        """One step of one group of queries.

        Args:
            query: (B, L, D) content.
            position: (L, D) or (B, L, D), added to queries and keys, never to values.
            seen: the image map to read, from `see`.
            cross_allowed: boolean (B, 1, L, H*W).
            tokens: (B, T, D) further keys of the self-attention, or None. Their position is the
                same tensor, so as keys they count twice.
            self_allowed: boolean, broadcastable to (B, 1, L, L+T), or None for all.
        """
        query = self.read_map(query, position, seen, cross_allowed)
        return self.exchange(query, position, tokens, self_allowed)

    def read_map(
        self,
        query: Tensor,
        position: Tensor,
        seen: tuple[Tensor, Tensor],
        cross_allowed: Tensor,
    ) -> Tensor:
        """The cross-attention of `forward`, in which no query sees another."""
        attended = self.cross_attn.attend(query + position, seen, cross_allowed)
        return self.cross_norm(query + attended)

    def exchange(
        self,
        query: Tensor,
        position: Tensor,
        tokens: Tensor | None = None,
        self_allowed: Tensor | None = None,
    ) -> Tensor:
        """What follows in `forward`: self-attention and feed-forward."""
        where = query + position
        key, value = where, query
        if tokens is not None:
            key = torch.cat((key, 2 * tokens), 1)
            value = torch.cat((value, tokens), 1)
        query = self.self_norm(query + self.self_attn(where, key, value, self_allowed))
        return self.ffn_norm(query + self.ffn(query))
