"""Class names -> embeddings by the text encoder of a CLIP."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import Names, TextBank
from mmprompt.common.texts import Texts
from mmprompt.foundation.clip.loading import (
    clip_architecture,
    load_clip,
    open_clip,
)
from mmprompt.foundation.clip.templates import clip_templates
from mmprompt.foundation.seem.class_names import logged_progress
from mmprompt.foundation.seem.templates import NO_OBJECT_NAME, clean_name
from mmprompt.foundation.seem.tokenizer import flatten_names

BATCH = 32
#: The text encoder that was last used, by what decides its weights.
_kept: dict[str, nn.Module] = {}
# Counts up whenever equal weights, names and templates give other rows than before.
METHOD = 1


def encode_with_clip(
    names: Names,
    clip: str | Mapping,
    pretrained: str | os.PathLike | None = None,
    templates: str | Sequence[str] = 'a {}',
) -> Texts:
    """Embeddings of class names, one entry for each name of a class.

    An entry is the mean over templates of unit embeddings, brought to unit length. What weights of
    a tag or of a file gave is kept for the next run (`TextBank.cached`); the text encoder is
    kept for other names in this one.

    Args:
        names: C classes, each a name or a list of names.
        clip: `model` of `load_clip`.
        pretrained: of `load_clip`.
        templates: of `clip_templates`.

    Raises:
        UserError: see `load_clip`; a text is longer than the encoder reads, or names or templates
            cannot be used.
    """
    groups, sentences = flatten_names(names), clip_templates(templates)
    words = [word for group in groups for word in group]
    class_of = torch.tensor([c for c, group in enumerate(groups) for _ in group], dtype=torch.long)

    def encode() -> Tensor:
        model = _text_encoder(clip, pretrained, maker)
        return _encode([*words, NO_OBJECT_NAME], model, clip_tokenizer(clip), sentences)

    maker = _identity(clip, pretrained)
    if maker is None:
        return Texts(encode()[:-1], class_of, groups)
    bank = TextBank.cached(words, sentences, maker, encode)
    return Texts(bank.embeddings[:-1], class_of, groups)


def _text_encoder(
    clip: str | Mapping, pretrained: str | os.PathLike | None, maker: str | None
) -> nn.Module:
    """A CLIP without its images, kept for the next names; `maker` is its `_identity`."""
    key = maker or json.dumps(clip_architecture(clip), sort_keys=True)
    if key not in _kept:
        _kept.clear()  # before another is loaded
        model = load_clip(clip, pretrained)
        model.visual = None
        _kept[key] = model
    return _kept[key]


@torch.no_grad()
def _encode(
    words: Sequence[str], model: nn.Module, tokenize: Callable, sentences: Sequence[str]
) -> Tensor:
    """(len(words), D) unit rows."""
    texts = [sentence.format(clean_name(word)) for word in words for sentence in sentences]
    for text in texts:
        length = len(tokenize.encode(text)) + 2  # start and end
        if length > tokenize.context_length:
            raise UserError(
                f'class names: expected texts of at most {tokenize.context_length} tokens, found '
                f'one of {length}: {text!r}. Shorten the name or the template.'
            )
    progress, rows = logged_progress(), []
    for start in range(0, len(texts), BATCH):
        tokens = tokenize(texts[start : start + BATCH])
        rows.append(model.encode_text(tokens, normalize=True).float())
        progress(min(start + BATCH, len(texts)), len(texts))
    mean = torch.cat(rows).unflatten(0, (len(words), len(sentences))).mean(dim=1)
    return F.normalize(mean, dim=-1)


def clip_tokenizer(clip: str | Mapping):
    """Texts -> ids (N, context), as the text encoder of a CLIP reads them."""
    config = clip_architecture(clip)['text_cfg']
    return open_clip().SimpleTokenizer(
        context_length=config.get('context_length', 77), **(config.get('tokenizer_kwargs') or {})
    )


def _identity(clip: str | Mapping, pretrained: str | os.PathLike | None) -> str | None:
    """What decides the rows besides names and templates (SHA-256, hex); None for random weights.

    A tag stands for its weights, which are not asked for again; a file for what is in it.
    """
    architecture = clip_architecture(clip, pretrained)
    if pretrained is not None and Path(pretrained).expanduser().is_file():
        weights = _digest(Path(pretrained).expanduser())
    elif pretrained is None and isinstance(clip, Mapping):
        return None
    else:
        weights = f'{clip}\0{pretrained}'
    content = [METHOD, architecture, weights]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
