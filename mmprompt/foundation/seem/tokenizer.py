"""CLIP's byte-pair tokens from MMSegmentation's vocabulary file; no download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.templates import NO_OBJECT_NAME, clean_name

START, END = 49406, 49407
VOCABULARY = 49408


@lru_cache(maxsize=1)
def _library_tokenizer():
    # Imported late: reading the merge table takes most of a second.
    from mmseg.utils.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=65536)
def encode_text(text: str) -> tuple[int, ...]:
    """Token ids of one text, without start and end."""
    return tuple(_library_tokenizer().encode(text))


def flatten_names(names: Iterable[str | Sequence[str]]) -> list[list[str]]:
    """Each class as a list of its synonyms."""
    return [[name] if isinstance(name, str) else list(name) for name in names]


def collect_token_ids(
    names: Iterable[str | Sequence[str]], templates: Sequence[str] = ('{}',)
) -> list[int]:
    """The sorted ids that a compact table needs for these names, templates and the no-object row.

    Args:
        names: class names, or lists of synonyms.
        templates: sentences with one '{}'.
    """
    words = [clean_name(word) for group in flatten_names(names) for word in group]
    ids = {START, END}
    for word in (*words, NO_OBJECT_NAME):
        for template in templates:
            ids.update(encode_text(template.format(word)))
    return sorted(ids)


def _word_of(text: str, missing: set[int]) -> str:
    for word in text.split():
        word = word.strip('.,;:!?()') or word
        if missing & set(encode_text(word)):
            return word
    return text


def tokenize(texts: Sequence[str], context: int, known: frozenset[int] | None = None) -> Tensor:
    """Texts -> ids, (N, L) int64, L = the longest text but at most `context`.

    Padding is the end token, as in the reference; too long texts are cut before it.

    Raises:
        UserError: a token is not among `known`; the message names the word.
    """
    rows = []
    for text in texts:
        ids = encode_text(text)
        missing = set(ids) - known if known is not None else set()
        if missing:
            raise UserError(
                f'The word {_word_of(text, missing)!r} (in the text {text!r}) is not among the '
                f"{len(known)} tokens that this model's text encoder keeps. Use a synonym that it "
                f'knows, or a model with the full vocabulary.'
            )
        rows.append([START, *ids[: context - 2], END])
    length = max(len(row) for row in rows)
    out = torch.full((len(rows), length), END, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out
