"""Attention to keys and values of something frozen: on a CPU no gradient is made but the queries'.

Notation: B images, H heads, L queries, K keys, d channels of a head.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention`, whose gradient takes three products instead of five.

    PyTorch's kernel makes the gradients of queries, keys and values together, whoever asks. Where
    only queries need one, as a learned query before a frozen image does, that of keys and values is
    left out. Results are the same numbers, gradients but for rounding.

    Args:
        query: (B, H, L, d).
        key: (B, H, K, d).
        value: (B, H, K, d).
        allowed: boolean, broadcastable to (B, H, L, K), True in each row at least once; or None.
        is_causal: row i attends to columns up to i only; instead of `allowed`.
    """
    if allowed is not None and torch.is_grad_enabled() and _only_queries(query, key, value):
        return _QueryGradient.apply(query, key, value, allowed)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=is_causal)


def _only_queries(query: Tensor, key: Tensor, value: Tensor) -> bool:
    # Half precision is left to the kernel, which adds up in float32.
    wide = query.device.type == 'cpu' and query.dtype in (torch.float32, torch.float64)
    return wide and query.requires_grad and not (key.requires_grad or value.requires_grad)


class _QueryGradient(torch.autograd.Function):
    """Keeps no (L, K) matrix either: that of one head at a time is made again."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        ctx.save_for_backward(query, key, value, allowed, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        query, key, value, allowed, out = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        hidden = (~allowed).expand(*query.shape[:3], key.shape[2])
        mean = (gradient * out).sum(-1, keepdim=True)  # of `rise` under the weights
        found = torch.empty_like(query)
        for place in product(*map(range, query.shape[:2])):
            scores = (query[place] * scale) @ key[place].t()  # (L, K)
            weights = scores.masked_fill_(hidden[place], float('-inf')).softmax(-1)
            rise = gradient[place] @ value[place].t()  # by how much the loss grows with a weight
            found[place] = rise.sub_(mean[place]).mul_(weights) @ key[place]
        return found.mul_(scale), None, None, None
