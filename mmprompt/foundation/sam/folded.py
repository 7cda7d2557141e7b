"""SAM's two-way transformer for many prompts of few tokens each, without gradients.

A point has some seven tokens, an image 4096 cells. Each attention between the two has a linear map
of every cell next to one of every token; taken together on the tokens' side, as (W_k c) q =
c (W_k^T q), they leave one product of cells and tokens. The result is that of `TwoWayTransformer`
but for rounding.

Notation: N prompts, T tokens each, L cells, D channels, h heads of d channels each.
"""

import torch
from torch import Tensor

from mmprompt.foundation.sam.mask_decoder import TwoWayTransformer, _Attention, _TwoWayBlock


def folded(transformer: TwoWayTransformer, start: Tensor, cells: Tensor, places: Tensor):
    """`TwoWayTransformer.forward`: tokens (N, T, D), cells (1, L, D), places (1, L, D)."""
    tokens = start
    for block in transformer.layers:
        tokens, cells = _block(block, tokens, cells, start, places)
    seen = _look(
        transformer.final_attn_token_to_image, tokens + start, cells + places, cells
    )  # (N, T, D)
    return transformer.norm_final_attn(tokens + seen), cells


def _block(
    block: _TwoWayBlock, tokens: Tensor, cells: Tensor, start: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    if block.first:
        tokens = block.norm1(block.self_attn(tokens, tokens, tokens))
    else:
        q = tokens + start
        tokens = block.norm1(tokens + block.self_attn(q, q, tokens))
    k = cells + places
    attention = block.cross_attn_token_to_image
    # The cells of the first block are the same for all prompts: their own maps are made once.
    look = attention if len(cells) == 1 else lambda *x: _look(attention, *x)
    tokens = block.norm2(tokens + look(tokens + start, k, cells))
    tokens = block.norm3(tokens + block.mlp(tokens))
    cells = cells + _tell(block.cross_attn_image_to_token, k, tokens + start, tokens)
    return tokens, block.norm4(cells)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(h * d, D) -> (h, d, D)."""
    return weight.unflatten(0, (heads, -1))


def _look(attention: _Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens (N, T, D) attend to cells (N, L, D), twice given -> (N, T, D)."""
    heads = attention.num_heads
    q = attention.q_proj(tokens).unflatten(-1, (heads, -1))  # (N, T, h, d)
    # What the bias of the keys adds is the same for all cells, and the softmax drops it.
    q = torch.einsum('nthd,hde->nhte', q, _by_head(attention.k_proj.weight, heads))
    q = q.flatten(1, 2) * attention_scale(attention)  # (N, h * T, D)
    weights = torch.matmul(q, keys.transpose(1, 2)).softmax(-1)  # (N, h * T, L)
    seen = torch.matmul(weights, values).unflatten(1, (heads, -1))  # (N, h, T, D)
    seen = torch.einsum('nhte,hde->nthd', seen, _by_head(attention.v_proj.weight, heads))
    return attention.out_proj(seen.flatten(2) + attention.v_proj.bias)


def _tell(attention: _Attention, cells: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Cells (N or 1, L, D) attend to tokens (N, T, D), twice given -> (N, L, D)."""
    heads = attention.num_heads
    k, v = (
        f(x).unflatten(-1, (heads, -1))  # (N, T, h, d)
        for f, x in ((attention.k_proj, keys), (attention.v_proj, values))
    )
    scale = attention_scale(attention)
    bias = attention.q_proj.bias.unflatten(0, (heads, -1))
    bias = torch.einsum('nthd,hd->nht', k, bias).flatten(1)[..., None]  # (N, h * T, 1)
    k = torch.einsum('nthd,hde->nhte', k, _by_head(attention.q_proj.weight, heads)).flatten(1, 2)
    # Cells last: the softmax over seven tokens then runs along memory.
    scores = (torch.matmul(k, cells.transpose(1, 2)) + bias) * scale  # (N, h * T, L)
    weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
    out = attention.out_proj.weight.unflatten(1, (heads, -1))  # (D, h, d)
    v = torch.einsum('nthd,ehd->nhte', v, out).flatten(1, 2)  # (N, h * T, D)
    return torch.matmul(weights.transpose(1, 2), v) + attention.out_proj.bias


def attention_scale(attention: _Attention) -> float:
    """1 / sqrt(d)."""
    return (attention.q_proj.out_features // attention.num_heads) ** -0.5
