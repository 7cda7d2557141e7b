"""What a user hands to `SEEM.decode` beside features, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.features import Strokes

SPATIAL_KEYS = ('content', 'position', 'tokens')
STROKE_KEYS = ('positive', 'negative', 'previous')


def check_semantic(semantic: Tensor, width: int) -> None:
    """Refuse what are no class embeddings (C+1, width)."""
    if not isinstance(semantic, Tensor) or semantic.ndim != 2 or semantic.shape[1] != width:
        raise UserError(
            f'SEEM.decode: semantic must be class embeddings (C+1, {width}), no-object row last, '
            f'found {_shown(semantic)}. Make them with SEEM.embed_classes.'
        )


def read_spatial(spatial: Tensor | Mapping | None) -> dict[str, Tensor]:
    """The given parts by name; a bare tensor is `content`.

    Raises:
        UserError: neither a tensor nor a dict of tensors under known keys.
    """
    if spatial is None:
        return {}
    if isinstance(spatial, Tensor):
        return {'content': spatial}
    if not isinstance(spatial, Mapping):
        raise UserError(
            f'SEEM.decode: spatial must be a tensor (N, D) or a dict with some of {SPATIAL_KEYS}, '
            f'found {_shown(spatial)}.'
        )
    unknown = sorted(set(spatial) - set(SPATIAL_KEYS))
    if unknown:
        raise UserError(
            f'SEEM.decode: unknown keys {unknown} in spatial; expected some of {SPATIAL_KEYS}.'
        )
    return {key: value for key, value in spatial.items() if value is not None}


def check_rows(name: str, rows: Tensor, dim: int, most: int, batch: int) -> None:
    """Refuse replacement rows that are neither (N, dim) nor (batch, N, dim), N at most `most`."""
    right = isinstance(rows, Tensor) and (rows.ndim == 2 or rows.ndim == 3 and len(rows) == batch)
    if not right or rows.shape[-1] != dim or rows.shape[-2] > most:
        raise UserError(
            f'SEEM.decode: spatial[{name!r}] must have the shape (N, {dim}) or (B, N, {dim}) with '
            f'B={batch} and N at most {most}, found {_shown(rows)}.'
        )


def check_tokens(tokens: Tensor, dim: int, levels: int) -> None:
    """Refuse tokens that are neither (T, dim) nor (levels, T, dim)."""
    right = isinstance(tokens, Tensor)
    right = right and (tokens.ndim == 2 or tokens.ndim == 3 and len(tokens) == levels)
    if not right or tokens.shape[-1] != dim:
        raise UserError(
            f"SEEM.decode: spatial['tokens'] must have the shape (T, {dim}), or ({levels}, T, "
            f'{dim}) for one set per map, found {_shown(tokens)}.'
        )


def as_strokes(strokes: Strokes | Mapping | Tensor | np.ndarray) -> Strokes:
    """Strokes from a bare positive mask or a dict with the fields of `Strokes`.

    Raises:
        UserError: something else.
    """
    if isinstance(strokes, Strokes):
        return strokes
    if isinstance(strokes, (Tensor, np.ndarray)):
        return Strokes(torch.as_tensor(strokes))
    if not isinstance(strokes, Mapping) or set(strokes) - set(STROKE_KEYS):
        raise UserError(
            f'strokes must be one positive mask, Strokes(positive, negative), or a dict with some '
            f'of {STROKE_KEYS}, found {_shown(strokes)}.'
        )
    if strokes.get('positive') is None:
        raise UserError("strokes lack 'positive', the mask of what is meant. Give it.")
    return Strokes(*(_tensor(strokes.get(key)) for key in STROKE_KEYS))


def read_strokes(
    strokes: Strokes | Mapping | Tensor | np.ndarray | None, batch: int, size: tuple[int, int]
) -> Strokes | None:
    """`as_strokes` with masks (batch, H, W) at the padded input size.

    Masks of one channel, (batch, 1, H, W), lose it; a mask (H, W) is that of a single image.

    Raises:
        UserError: masks or `previous` of another shape.
    """
    if strokes is None:
        return None
    strokes = as_strokes(strokes)
    masks = [_mask(name, getattr(strokes, name), batch, size) for name in STROKE_KEYS[:2]]
    previous = strokes.previous
    if previous is not None and (previous.ndim != 4 or previous.shape[:2] != (batch, 1)):
        raise UserError(
            f'SEEM.decode: strokes.previous must be mask logits ({batch}, 1, h, w), the `answer` '
            f'of the round before, found {_shown(previous)}.'
        )
    return Strokes(*masks, previous)


def _mask(name: str, mask, batch: int, size: tuple[int, int]) -> Tensor | None:
    if mask is None:
        return None
    found, mask = _shown(mask), torch.as_tensor(mask)
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim == 2 and batch == 1:
        mask = mask[None]
    if tuple(mask.shape) != (batch, *size):
        raise UserError(
            f'SEEM.decode: strokes.{name} must be a mask {(batch, *size)}, at the padded size of '
            f'the input, found {found}. SEEM.segment takes strokes at the size of the image.'
        )
    return mask


def _tensor(value) -> Tensor | None:
    return None if value is None else torch.as_tensor(value)


def _shown(value) -> str:
    shape = getattr(value, 'shape', None)
    if shape is not None:
        return f'the shape {tuple(shape)}'
    if isinstance(value, Mapping):
        return f'the keys {sorted(map(str, value))}'
    return type(value).__name__
