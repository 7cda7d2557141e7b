"""Class embeddings of a config's ``text``, whatever made them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank
from mmprompt.foundation.clip import encode_with_clip
from mmprompt.foundation.seem.class_names import make_text_bank


def read_text(text: str | Mapping, classes: Sequence[str], dim: int) -> Tensor:
    """Embeddings of the classes in the dataset's order, (C, dim) float32.

    Args:
        text: path of a text bank (``.safetensors``), whose names are checked; of a ``.npy`` array
            with one row for each class; or arguments of `make_text_bank` or `encode_with_clip`,
            such as ``dict(base='mmprompt://seem-nano_streets')`` or
            ``dict(clip='openai/clip-vit-base-patch32')``, for a text encoder. It encodes the names
            of the classes, or the ``names`` that are given in their place.
        classes: C names.
        dim: expected width.

    Raises:
        UserError: there is no such file, or it holds other classes, numbers or widths.
    """
    if isinstance(text, Mapping) and 'clip' in text:
        rows = encode_with_clip(**{'names': classes, **text})
    elif isinstance(text, Mapping):
        rows = make_text_bank(**{'names': classes, **text}).embeddings[:-1]
    elif Path(text).suffix == '.npy':
        rows = _read_array(Path(text))
    else:
        bank = TextBank.load(text)
        bank.check(classes)
        rows = bank.embeddings[:-1]
    if tuple(rows.shape) != (len(classes), dim):
        raise UserError(
            f'{text}: expected one row of {dim} numbers for each of the {len(classes)} classes, as '
            f'model.head.text_dim and model.classes say, found the shape {tuple(rows.shape)}. Give '
            f'the embeddings of these classes as model.head.text, or correct the two.'
        )
    return rows.float()


def _read_array(path: Path) -> Tensor:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f'{path}: expected a .npy array of class embeddings, found none that can be read '
            f'({error}). Correct model.head.text.'
        ) from error
    if rows.dtype.kind != 'f' or not np.isfinite(rows).all():
        raise UserError(
            f'{path}: expected finite floating point numbers, found {rows.dtype} with others among '
            f'them. Make the embeddings again.'
        )
    return torch.from_numpy(rows.astype(np.float32))
