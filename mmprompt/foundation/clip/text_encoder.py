"""Class names -> embeddings by the text encoder of a CLIP, which the library transformers runs.

The library is optional; tokens are made by MMSegmentation's vocabulary, as for SEEM.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import Names
from mmprompt.foundation.seem.templates import check_templates, clean_name
from mmprompt.foundation.seem.tokenizer import END, START, encode_text, flatten_names

KIND = 'CLIPTextModelWithProjection'
INSTALL = 'pip install "transformers>=4.56"'


@torch.no_grad()
def encode_with_clip(
    names: Names, clip: str | os.PathLike, templates: Sequence[str] = ('a {}',)
) -> Tensor:
    """Embeddings of class names, unit rows (C, D) float32.

    The mean over templates and synonyms of unit embeddings, brought to unit length.

    Args:
        names: C classes, each a name or a list of synonyms.
        clip: a name on huggingface.co, fetched once into the library's cache, or a folder.
        templates: sentences with one '{}' for the name.

    Raises:
        UserError: the library is missing, the weights cannot be had, a text is longer than the
            encoder reads, or names or templates cannot be used.
    """
    groups, templates = flatten_names(names), check_templates(templates)
    model = load_clip_text(clip)
    limit = model.config.max_position_embeddings
    rows = []
    for words in groups:
        texts = [template.format(clean_name(word)) for word in words for template in templates]
        tokens = [(START, *encode_text(text), END) for text in texts]
        longest = max(len(ids) for ids in tokens)
        if longest > limit:
            raise UserError(
                f'class names: expected texts of at most {limit} tokens, found one of {longest} '
                f'for {words[0]!r}. Shorten the name or the template.'
            )
        # Each text alone: padding and its end token differ between versions of the library.
        encoded = [model(input_ids=torch.tensor([ids])).text_embeds[0] for ids in tokens]
        rows.append(F.normalize(torch.stack(encoded).float(), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def load_clip_text(clip: str | os.PathLike) -> nn.Module:
    """The text encoder with all of its weights, in evaluation mode.

    Raises:
        UserError: see `encode_with_clip`.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f'text.clip={str(clip)!r} needs the library transformers, which is not installed. '
            f'Install it with `{INSTALL}`, or give model.head.text a file of embeddings.'
        ) from error
    try:
        model, info = getattr(transformers, KIND).from_pretrained(
            str(clip), output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f'{clip}: expected a CLIP of transformers, in a folder here or at '
            f'https://huggingface.co/{clip}, found none that can be read: {first} Without a '
            f'network, fetch config.json and model.safetensors from that address elsewhere, put '
            f'them into a folder and name it: --cfg-options model.head.text.clip=FOLDER'
        ) from error
    missing = sorted(map(str, info['missing_keys']))
    if missing:
        raise UserError(
            f'{clip}: expected all weights of a {KIND}, found {len(missing)} missing: '
            f'{", ".join(missing[:5])}. Give the weights of a CLIP.'
        )
    return model.eval()
