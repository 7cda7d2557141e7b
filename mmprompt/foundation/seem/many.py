"""One image under several spatial prompts: the decoder run once for all of them.

What the decoder makes of the image (keys and values of each map, their projections) is the same for
every prompt, so it is made once. In cross-attention no query sees another: the queries of all
prompts stand side by side along the query axis. Self-attention, in which they would, has them along
the batch axis.

Notation: B images, S spatial prompts, Q queries, D channels, L levels, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmprompt.foundation.seem.decoder import SEEMDecoder
from mmprompt.foundation.seem.decoder_layer import Start
from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput

Spatial = Mapping[str, Tensor]


def decode_many(
    decoder: SEEMDecoder, features: SEEMFeatures, prompts: Sequence[Spatial]
) -> list[SEEMOutput]:
    """What ``decoder(features, semantic, spatial)`` gives for each spatial prompt, without classes.

    Args:
        decoder: in eval mode. Tokens are attended to by the object queries, whatever its
            `object_tokens` says: a prompt that has them was learned so.
        features: maps of B images.
        prompts: S dicts of ``content`` (N, D), ``position`` (N, D) and ``tokens`` (L, T, D), each
            optional; T must be the same for all.

    Returns:
        S outputs. Their `pred_logits` have no columns: `SEEMDecoder.class_logits` makes those of
        any class embeddings from their `queries`. Masks are multiplied out when asked for.

    Raises:
        ValueError: prompts with unequal numbers of tokens.
    """
    tokens = _tokens(prompts)
    levels = decoder._levels(features)
    batch, count = len(features.mask_features), len(prompts)
    starts = [decoder._queries(dict(prompt), batch) for prompt in prompts]
    # (B, S, Q, D) -> (B, S * Q, D)
    query, position = (torch.stack(rows, 1).flatten(1, 2) for rows in zip(*starts))
    start = Start(query, position, query.shape[1])
    apart = position.unflatten(1, (count, -1)).flatten(0, 1)  # (B * S, Q, D)
    for i, layer in enumerate(decoder.layers):
        turn = i % decoder.num_levels
        allowed = decoder._cross_allowed(query, levels[turn], start)
        query = layer.read_map(query, position, layer.see(levels[turn]), allowed)
        rows = query.unflatten(1, (count, -1)).flatten(0, 1)  # (B * S, Q, D)
        own = None if tokens is None else tokens[turn].repeat(batch, 1, 1)  # (B * S, T, D)
        query = layer.exchange(rows, apart, own).unflatten(0, (batch, count)).flatten(1, 2)
    normed = decoder.decoder_norm(query)
    vectors = decoder._mask_vector(normed).unflatten(1, (count, -1))  # (B, S, Q, Dm)
    normed = normed.unflatten(1, (count, -1))
    return [
        SEEMOutput(normed.new_empty(*normed[:, s].shape[:2], 0), vectors[:, s], maps, normed[:, s])
        for s, maps in enumerate([features.mask_features] * count)
    ]


def _tokens(prompts: Sequence[Spatial]) -> Tensor | None:
    """(L, S, T, D), or None where no prompt has tokens."""
    found = [prompt.get('tokens') for prompt in prompts]
    counts = {0 if rows is None else rows.shape[1] for rows in found}
    if len(counts) > 1:
        raise ValueError(
            f'decode_many: expected spatial prompts with equal numbers of tokens, found '
            f'{sorted(counts)}. Decode those with unequal numbers apart.'
        )
    return None if counts == {0} else torch.stack(found, 1)
