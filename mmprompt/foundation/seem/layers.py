"""Small parts shared by the encoder and the decoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmprompt.foundation.seem.frozen_attention import attention


class DropPath(nn.Module):
    """Stochastic depth: drop the whole branch of a sample with probability `rate`."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...); identity in eval mode."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)


ROWS = 16  # PyTorch hands 1x1 convolutions of this batch size to oneDNN, even on one thread
SMALL = 1 << 16  # below this many values the way to the kernel costs more than the kernel
ONEDNN = torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, (..., C) -> (..., D), by the faster of two equal ways.

    On a CPU in float32, `F.linear` goes to MKL, which leaves half of an AMD processor unused. The
    same product as a 1x1 convolution goes to oneDNN, which is made for both makers. Neither the
    rows nor the result are copied: they are channels-last as they are.
    """
    count = x.numel() // x.shape[-1]
    if (
        x.device.type != 'cpu'
        or x.dtype != torch.float32
        or x.numel() < SMALL
        or count % ROWS
        or not ONEDNN
    ):
        return F.linear(x, weight, bias)
    rows = x.reshape(ROWS, 1, count // ROWS, -1).permute(0, 3, 1, 2)  # (16, C, 1, N/16)
    out = F.conv2d(rows, weight[:, :, None, None], bias)  # (16, D, 1, N/16)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`nn.Linear` that computes by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        return linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention with the parameter names of `nn.MultiheadAttention`, batch first.

    The mask is boolean, True = may attend, and broadcasts over heads, so that nothing of size
    heads x queries x keys is built beforehand.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'Attention: dim {dim} is not a multiple of num_heads {num_heads}')
        self.dim = dim
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _heads(self, x: Tensor, part: int) -> Tensor:
        rows = slice(part * self.dim, (part + 1) * self.dim)
        x = linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, L, d)

    def read(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What `attend` needs of keys and values, (B, Lk, D) each; usable for many queries."""
        return self._heads(key, 1), self._heads(value, 2)

    def attend(
        self,
        query: Tensor,
        seen: tuple[Tensor, Tensor],
        allowed: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """`forward` with keys and values that were `read` before."""
        empty = None
        if allowed is not None:
            empty = ~allowed.any(-1, keepdim=True)  # (B, 1, Lq, 1)
            allowed = allowed | empty
        out = attention(self._heads(query, 0), *seen, allowed, is_causal)
        if empty is not None:
            out = out.masked_fill(empty, 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, Lq, D).
            key: (B, Lk, D).
            value: (B, Lk, D).
            allowed: boolean, broadcastable to (B, heads, Lq, Lk). A row without any True gives
                zero before the output projection (the `nan_to_num` of the reference).
            is_causal: row i attends to columns up to i only; instead of `allowed`.

        Returns:
            (B, Lq, D).
        """
        return self.attend(query, self.read(key, value), allowed, is_causal)


class FeedForward(nn.Module):
    """linear - ReLU - linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = Linear(dim, hidden)
        self.linear2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.linear2(F.relu(self.linear1(x)))


def _sine_axis(count: int, feats: int, like: Tensor, temperature: float) -> Tensor:
    """(count, feats) interleaved sines and cosines of positions scaled to (0, 2 pi]."""
    where = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
    where = where / (count + 1e-6) * (2 * math.pi)
    index = torch.arange(0, feats, dtype=like.dtype, device=like.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode='floor') / feats)
    angle = where[:, None] / period  # (count, feats)
    return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)


def sine_position(height: int, width: int, dim: int, like: Tensor, temperature=1e4) -> Tensor:
    """Normalised 2-D sine position encoding, (H*W, dim): y in the first half, x in the second.

    Args:
        height: rows H of the map.
        width: columns W.
        dim: encoding width, a multiple of 4.
        like: tensor that gives dtype and device.
        temperature: base of the periods.
    """
    half = dim // 2
    rows = _sine_axis(height, half, like, temperature)[:, None].expand(-1, width, -1)
    cols = _sine_axis(width, half, like, temperature)[None].expand(height, -1, -1)
    return torch.cat((rows, cols), dim=2).flatten(0, 1)
