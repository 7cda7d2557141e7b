"""The language side of SEEM: a causal CLIP-like transformer over class names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.layers import ROWS, Attention, Linear, linear
from mmprompt.foundation.seem.templates import (
    NO_OBJECT_NAME,
    check_templates,
    clean_name,
    seem_templates,
)
from mmprompt.foundation.seem.tokenizer import (
    END,
    START,
    VOCABULARY,
    encode_text,
    flatten_names,
    token_rows,
    tokenize,
)
from mmprompt.registry import MODELS


class _LayerNorm(nn.LayerNorm):
    """eps 1e-12, computed in float32 or better: half precision would round eps to zero."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if x.dtype in (torch.float32, torch.float64):
            return super().forward(x)
        wide = F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return wide.to(x.dtype)


class TextBlock(nn.Module):
    """Pre-norm transformer layer with QuickGELU."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, num_heads)
        self.ln_1 = _LayerNorm(width)
        self.c_fc = Linear(width, 4 * width)
        self.c_proj = Linear(4 * width, width)
        self.ln_2 = _LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D), causal."""
        y = self.ln_1(x)
        return self._mlp(x + self.attn(y, y, y, is_causal=True))

    def on_tree(self, x: Tensor, paths: Tensor, allowed: Tensor) -> Tensor:
        """The same for a tree of tokens, (M, D) -> (M, D).

        Args:
            x: one row per token.
            paths: (M, L) the rows that a token attends to: those before it in its text, and itself.
            allowed: (M, 1, 1, L) False where `paths` is padding.
        """
        attn = self.attn
        qkv = linear(self.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = qkv.unflatten(1, (3, attn.num_heads, -1)).unbind(1)  # (M, heads, d)
        k, v = (part[paths].transpose(1, 2) for part in (k, v))  # (M, heads, L, d)
        y = F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=allowed)
        return self._mlp(x + attn.out_proj(y.flatten(1)))

    def _mlp(self, x: Tensor) -> Tensor:
        y = self.c_fc(self.ln_2(x))
        return x + self.c_proj(y * torch.sigmoid(1.702 * y))


def first_end(ids: Tensor) -> Tensor:
    """Where the text ends, (N,), in ids (N, L); padding repeats the end token."""
    return (ids == END).int().argmax(1)


def pool_synonyms(words: Tensor, sizes: Sequence[int]) -> Tensor:
    """Unit embeddings of all words (W, dim) -> one unit row per class (C, dim).

    Args:
        words: those of the first class, then those of the second, and so on.
        sizes: number of words of each class.
    """
    return F.normalize(torch.stack([part.mean(0) for part in words.split(list(sizes))]), dim=-1)


@MODELS.register_module()
class SEEMTextEncoder(BaseModule):
    """Class names -> unit embeddings.

    Args:
        width: channels of the transformer.
        num_layers: its layers.
        num_heads: its heads.
        context_length: most tokens of a text, start and end included.
        dim: width of the embeddings.
        token_ids: CLIP ids that the table keeps, sorted, start and end among them; None keeps
            all 49408. See `tokenizer.collect_token_ids`.
        init_cfg: MMEngine initialisation config.
    """

    def __init__(
        self,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        context_length: int = 77,
        dim: int = 512,
        token_ids: Sequence[int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.context_length = context_length
        self.known = None
        table = None
        if token_ids is not None:
            token_ids = sorted(set(token_ids))
            if not {START, END} <= set(token_ids):
                raise UserError(
                    f'SEEMTextEncoder: token_ids must contain the start and end tokens {START} and '
                    f'{END}'
                )
            self.known = frozenset(token_ids)
            # On the CPU even while weights are built on the meta device: no file fills it later.
            table = torch.tensor(token_ids, device='cpu')
        self.register_buffer('token_ids', table, persistent=False)
        self.token_embedding = nn.Embedding(len(token_ids) if token_ids else VOCABULARY, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.ModuleList(TextBlock(width, num_heads) for _ in range(num_layers))
        self.ln_final = _LayerNorm(width)
        self.lang_proj = nn.Parameter(torch.empty(width, dim))
        self._reset()

    def _reset(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.trunc_normal_(self.lang_proj, std=self.lang_proj.shape[0] ** -0.5)

    def words(self, ids: Tensor) -> Tensor:
        """CLIP token ids (N, L) -> their rows of the table (N, L, width), without positions.

        Raises:
            UserError: an id is not in the compact table.
        """
        rows = ids
        if self.token_ids is not None:
            rows = torch.searchsorted(self.token_ids, ids).clamp(max=len(self.token_ids) - 1)
            wrong = self.token_ids[rows] != ids
            if wrong.any():
                raise UserError(f'Token ids {ids[wrong].unique().tolist()} are not in the table.')
        return self.token_embedding(rows)

    def hidden(self, ids: Tensor) -> Tensor:
        """CLIP token ids (N, L) -> last hidden states (N, L, width) after the final LayerNorm."""
        return self._in_context(self.words(ids))

    def _in_context(self, words: Tensor) -> Tensor:
        x = words + self.positional_embedding[: words.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x)

    def encode_words(self, words: Tensor, end: Tensor) -> Tensor:
        """Word vectors (N, L, width) -> embeddings (N, dim), not normalised.

        Args:
            words: `words` of token ids, or learned vectors in their place.
            end: (N,) where the first end token of each text stands; attention is causal, so nothing
                after it matters.
        """
        x = self._in_context(words)
        return x[torch.arange(len(x), device=x.device), end] @ self.lang_proj

    def forward(self, ids: Tensor) -> Tensor:
        """CLIP token ids (N, L) -> embeddings (N, dim), not normalised."""
        return self.encode_words(self.words(ids), first_end(ids))

    def _on_tree(self, rows: Sequence[tuple[int, ...]]) -> Tensor:
        """Texts as token ids -> embeddings (N, dim), each common beginning computed once.

        Attention is causal, so a token's states depend on the tokens before it alone: texts that
        begin alike share these states, and nothing is padded.
        """
        nodes, tokens, paths, ends = {}, [], [], []
        for row in rows:
            path: tuple[int, ...] = ()
            for token in row:
                node = nodes.setdefault((path[-1] if path else -1, token), len(nodes))
                if node == len(paths):
                    tokens.append(token)
                    paths.append((*path, node))
                path = paths[node]
            ends.append(path[-1])
        idle = -len(paths) % ROWS  # `linear` is fastest with whole blocks of rows
        tokens += [START] * idle
        paths += [(0,)] * idle
        device = self.positional_embedding.device
        lengths = torch.tensor([len(path) for path in paths])
        longest = int(lengths.max())
        padded = torch.tensor([path + (0,) * (longest - len(path)) for path in paths])  # (M, L)
        allowed = torch.arange(longest) < lengths[:, None]
        padded, allowed = padded.to(device), allowed[:, None, None].to(device)
        x = self.words(torch.tensor(tokens, device=device))
        x = x + self.positional_embedding[lengths.to(device) - 1]  # (M, width)
        for block in self.blocks:
            x = block.on_tree(x, padded, allowed)
        return self.ln_final(x[torch.tensor(ends, device=device)]) @ self.lang_proj

    def encode_texts(
        self,
        texts: Sequence[str],
        chunk: int = 512,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Texts -> unit embeddings (N, dim); equal texts are computed once.

        Args:
            texts: N texts.
            chunk: how many are computed at a time, which bounds the memory.
            progress: called after every chunk with the numbers of finished and of all texts.

        Raises:
            UserError: an empty text, or a word that the table does not hold.
        """
        rows = token_rows(texts, self.context_length, self.known)
        # In this order neighbours begin alike, which is what a chunk shares.
        order = sorted(set(rows))
        parts = []
        for start in range(0, len(order), chunk):
            parts.append(F.normalize(self._on_tree(order[start : start + chunk]), dim=-1))
            if progress is not None:
                progress(min(start + chunk, len(order)), len(order))
        place = {row: i for i, row in enumerate(order)}
        return torch.cat(parts)[[place[row] for row in rows]]

    def _warn_of_cut(self, texts: Sequence[str]) -> None:
        cut = [text for text in texts if len(encode_text(text)) + 2 > self.context_length]
        if cut:  # the reference cuts as well, silently
            print_log(
                f'{len(cut)} of {len(texts)} texts around class names are longer than '
                f'{self.context_length} tokens and are cut. The first: {cut[0]!r}',
                'current',
                logging.WARNING,
            )

    def class_embeddings(
        self,
        names: Sequence[str | Sequence[str]],
        templates: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Names -> (C+1, dim) unit rows, the no-object class ("background") last.

        Args:
            names: one entry per class: a name, or a list of synonyms, whose embeddings are averaged
                and normalised again.
            templates: sentences with one '{}', averaged and normalised again; None means SEEM's 81.
            progress: see `encode_texts`.

        Raises:
            UserError: a name or a template cannot be used.
        """
        templates = check_templates(seem_templates() if templates is None else templates)
        groups = [[clean_name(word) for word in group] for group in flatten_names(names)]
        groups.append([NO_OBJECT_NAME])
        texts = [t.format(word) for group in groups for word in group for t in templates]
        self._warn_of_cut(texts)
        words = self.encode_texts(texts, progress=progress).unflatten(0, (-1, len(templates)))
        words = F.normalize(words.mean(1), dim=-1)  # (W, T, dim) -> (W, dim)
        return pool_synonyms(words, [len(group) for group in groups])

    def sampled_embeddings(
        self,
        names: Sequence[str | Sequence[str]],
        templates: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Like `class_embeddings` with one random synonym and one random template per class.

        What training uses: cheap, differentiable, and every synonym gets its turn.
        """
        templates = seem_templates() if templates is None else templates

        def draw(options: Sequence[str]) -> str:
            return options[int(torch.randint(len(options), (1,), generator=generator))]

        groups = [*flatten_names(names), [NO_OBJECT_NAME]]
        words = [clean_name(draw(group)).replace(',', '').replace('+', ' ') for group in groups]
        texts = [draw(templates).format(word) for word in words]
        ids = tokenize(texts, self.context_length, self.known)
        return F.normalize(self(ids.to(self.positional_embedding.device)), dim=-1)
