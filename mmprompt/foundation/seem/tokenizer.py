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
    """Token ids of one text, without start and end.

    Lower case, white space collapsed, and mojibake, curly quotes, ligatures, full-width letters and
    HTML entities mended first, as OpenAI's CLIP does. Hugging Face's `CLIPTokenizer`, which SEEM
    calls, differs there alone: it leaves HTML entities as they are and mends the others only in its
    slow version with ftfy installed. Names without such characters have the same ids.
    """
    return tuple(_library_tokenizer().encode(text))


def flatten_names(names: Iterable[str | Sequence[str]]) -> list[list[str]]:
    """Each class as a list of its synonyms.

    Raises:
        UserError: `names` is one string, or a class is empty or no text.
    """
    if isinstance(names, str):
        raise UserError(
            f'class names: expected a list, found the string {names!r}. Write [{names!r}].'
        )
    groups = [[name] if isinstance(name, str) else name for name in names]
    for i, group in enumerate(groups):
        valid = isinstance(group, Sequence) and all(isinstance(word, str) for word in group)
        if not valid or not group or not all(encode_text(clean_name(word)) for word in group):
            raise UserError(
                f'class names: expected class {i} to be a name, or a list of synonyms, found '
                f'{names[i]!r}. Give every class a text that is not empty.'
            )
    return [list(group) for group in groups]


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


def token_rows(
    texts: Sequence[str], context: int, known: frozenset[int] | None = None
) -> list[tuple[int, ...]]:
    """Texts -> ids of each, start and end included, cut to `context` with the end kept.

    Raises:
        UserError: a text is empty or holds a special token, or tokens are not among `known`; the
            message names the words.
    """
    rows, unknown = [], {}
    for text in texts:
        ids = encode_text(text)
        if not ids or START in ids or END in ids:
            raise UserError(
                f'Text {text!r}: expected words, found '
                f'{"a special token" if ids else "nothing"}. Correct the class name.'
            )
        missing = set(ids) - known if known is not None else set()
        if missing:
            unknown.setdefault(_word_of(text, missing), text)
        rows.append((START, *ids[: context - 2], END))
    if unknown:
        words = ', '.join(map(repr, list(unknown)[:10]))
        more = f' and {len(unknown) - 10} more' if len(unknown) > 10 else ''
        raise UserError(
            f'Not among the {len(known)} tokens that the text encoder of this model keeps: '
            f'{words}{more} (in the text {next(iter(unknown.values()))!r}). Use synonyms that it '
            f'knows, or a model with the full vocabulary.'
        )
    return rows


def tokenize(texts: Sequence[str], context: int, known: frozenset[int] | None = None) -> Tensor:
    """Texts -> ids, (N, L) int64, L = the longest text but at most `context`.

    Padding is the end token, as in the reference; too long texts are cut before it.

    Raises:
        UserError: as `token_rows`.
    """
    rows = token_rows(texts, context, known)
    out = torch.full((len(rows), max(map(len, rows))), END, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out
