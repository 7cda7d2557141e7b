"""Reading and writing whole SEEM models: the public files, and our base files.

A base file is safetensors with string metadata: `format` ('1'), `kind` ('seem'), `config` (JSON of
the constructor dicts of `SEEM`), `fingerprint`, `record` (JSON, how the weights came to be). The
fingerprint is taken over the float32 values of what is stored, so it is the same for a public file
and its conversion, and another one where converting rounded the values.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmprompt.common.checkpoint import (
    fingerprint,
    load_strict,
    load_tensors,
    resolve_weights,
    save_tensors,
)
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import reference_keys
from mmprompt.foundation.seem.public_files import (
    check_flat,
    check_kind,
    check_whole,
    refuse_no_weights,
    size_hint,
    where_to_get,
)

FORMAT, KIND = '1', 'seem'
OURS = ('backbone.', 'pixel_decoder.', 'decoder.', 'text_encoder.')
Source = str | os.PathLike | Mapping[str, Tensor]
Model = TypeVar('Model', bound=nn.Module)


def save_base(
    path: str | os.PathLike, model: nn.Module, config: Mapping, record: Mapping | None = None
) -> Path:
    """Write the weights of a `SEEM` as a base file, atomically; see `save_weights`."""
    return save_weights(path, model.state_dict(), config, record)


def save_weights(
    path: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    config: Mapping,
    record: Mapping | None = None,
) -> Path:
    """Write a base file, atomically.

    Args:
        path: the safetensors file.
        tensors: state dict of a `SEEM`.
        config: the constructor dicts that build it again.
        record: facts about the weights, JSON-able.
    """
    metadata = dict(
        format=FORMAT,
        kind=KIND,
        config=json.dumps(config),
        fingerprint=fingerprint(tensors),
        record=json.dumps(record or {}),
    )
    return save_tensors(path, tensors, metadata)


def read_base(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Tensors in our names, and the metadata with `config` and `record` decoded.

    Public checkpoints are renamed and their config is read off the shapes.

    Raises:
        UserError: missing, damaged, of a newer format, or no SEEM.
    """
    tensors, metadata = _read_file(path)
    unknown = [name for name in tensors if not name.startswith(OURS)]
    if unknown:
        raise UserError(
            f'{path}: expected the tensors of a SEEM, found {len(unknown)} others: '
            f'{_shortened(unknown)}. Give a public SEEM v0 or v1.'
        )
    if 'fingerprint' not in metadata:
        metadata['fingerprint'] = fingerprint(tensors)
    return tensors, metadata


def _read_file(
    path: str | os.PathLike, text_encoder: bool = True
) -> tuple[dict[str, Tensor], dict]:
    """`read_base` without the fingerprint of a public file, unknown tensors left in."""
    try:
        path = resolve_weights(path)
    except UserError as error:
        raise UserError(f'{error}{where_to_get(path)}') from error
    refuse_no_weights(path)
    try:
        if path.suffix == '.safetensors':
            tensors, metadata = load_tensors(path)
        else:
            tensors, metadata = load_strict(path), {}
            check_flat(tensors, str(path))
        if reference_keys.is_reference(tensors):
            return _read_public(tensors, str(path), text_encoder)
    except UserError as error:
        raise UserError(f'{error}{size_hint(path)}') from error
    _check_metadata(tensors, metadata, str(path))
    decoded = {name: json.loads(metadata[name]) for name in ('config', 'record')}
    return tensors, {**metadata, **decoded}


def _read_public(
    tensors: Mapping[str, Tensor], source: str, text_encoder: bool
) -> tuple[dict[str, Tensor], dict]:
    """`from_reference` of a whole SEEM; says what it lacks that it can do without."""
    tensors, config = from_reference(tensors, source, text_encoder)
    check_whole(config, source)
    if text_encoder and 'text_encoder' not in config:
        print_log(
            f'{source} holds no text encoder (nothing under '
            f'"{reference_keys.LANGUAGE}lang_encoder."): give class embeddings, names cannot be '
            f'encoded. text_encoder=False says that this is meant.',
            'current',
            logging.WARNING,
        )
    return tensors, dict(config=config, record={})


def _check_metadata(tensors: Mapping[str, Tensor], metadata: Mapping, source: str) -> None:
    kind, version = metadata.get('kind'), metadata.get('format')
    if kind != KIND or version is None:
        raise UserError(
            f'{source}: expected a SEEM base file or a public SEEM checkpoint, found '
            f'{"a file of kind " + repr(kind) if kind else "other tensors"} (first: '
            f'{next(iter(tensors), None)!r}). Give a base file of mmprompt or seem_focal*.pt.'
        )
    if version != FORMAT:
        raise UserError(
            f'{source}: expected base file format {FORMAT}, found {version}. Update mmprompt.'
        )
    found = fingerprint(tensors)
    if found != metadata['fingerprint']:
        raise UserError(
            f'{source}: the weights do not match their fingerprint (expected '
            f'{metadata["fingerprint"][:12]}, found {found[:12]}). Copy the file again.'
        )


def from_reference(
    tensors: Mapping[str, Tensor], source: str, text_encoder: bool = True
) -> tuple[dict[str, Tensor], dict]:
    """Rename a public state dict and read its sizes, whatever number of layers it has.

    Args:
        tensors: flat state dict under the reference's names.
        source: what to call it in errors.
        text_encoder: keep the language side.

    Returns:
        Tensors in our names, those that are unknown in theirs, and the constructor dicts of
        `SEEM`. What takes no part in inference is left out.

    Raises:
        UserError: a relative of SEEM, or a part that gives the sizes is missing.
    """
    check_kind(tensors, source)
    ours = {}
    for key, value in tensors.items():
        if not key.startswith(reference_keys.IGNORED):
            name = reference_keys.to_ours(key) or key
            if text_encoder or not name.startswith('text_encoder.'):
                ours[name] = value
    try:
        return ours, reference_keys.config_from_shapes(ours)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    except (IndexError, ValueError) as error:
        raise UserError(
            f'{source}: expected a whole SEEM, found a backbone or a decoder whose tensors do not '
            f'have the dimensions of public ones. Give a whole state dict.'
        ) from error


def check_fit(
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    source: str,
    spell: Callable[[str], str] = str,
) -> None:
    """Compare tensors with those of a model: the same names, shapes and kinds of number.

    Args:
        own: state dict of the model, or of the part that is to be filled.
        tensors: what was read.
        source: what to call them in the error.
        spell: how to write a name in the error.

    Raises:
        UserError: with count and examples of what is missing, extra, of another shape or kind.
    """
    shared = [name for name in own if name in tensors]
    wrong = {
        'missing': [spell(name) for name in own if name not in tensors],
        'extra': [spell(name) for name in tensors if name not in own],
        'other shape': [
            f'{spell(k)} (expected {tuple(own[k].shape)}, found {tuple(tensors[k].shape)})'
            for k in shared
            if own[k].shape != tensors[k].shape
        ],
        'other kind of number': [
            f'{spell(k)} (expected {own[k].dtype}, found {tensors[k].dtype})'
            for k in shared
            if own[k].is_floating_point() != tensors[k].is_floating_point()
        ],
    }
    listed = [f'{k} {len(names)}: {_shortened(names)}' for k, names in wrong.items() if names]
    if listed:
        raise UserError(
            f'{source} does not fit the model: {"; ".join(listed)}. Give the weights of this very '
            f'model, or build the model that the weights belong to.'
        )


def _shortened(names: Sequence[str], most: int = 5) -> str:
    text = ', '.join(names[:most])
    return text if len(names) <= most else f'{text} and {len(names) - most} more'


def read_model(
    model_type: Callable[..., Model], source: Source, text_encoder: bool = True
) -> tuple[Model, dict[str, Tensor], dict]:
    """What a checkpoint holds and the model that it belongs to, compared strictly.

    Args:
        model_type: `SEEM`.
        source: see `SEEM.from_checkpoint`.
        text_encoder: keep the language side.

    Returns:
        The model on the meta device, its tensors as stored, and the metadata (`config`, `record`).

    Raises:
        UserError: the message lists what does not fit.
    """
    if isinstance(source, Mapping):
        name = 'The state dict'
        check_flat(source, name)
        if not reference_keys.is_reference(source):
            raise UserError(
                f'The state dict: expected the flat state dict of a public SEEM, found no key '
                f'under "sem_seg_head." (first: {next(iter(source), None)!r}). For base files of '
                f'mmprompt give the path.'
            )
        tensors, metadata = _read_public(source, name, text_encoder)
    elif not isinstance(source, (str, os.PathLike)):
        raise UserError(
            f'SEEM.from_checkpoint: expected the path of a checkpoint or a flat state dict, found '
            f'{type(source).__name__}.'
        )
    else:
        name = str(source)
        tensors, metadata = _read_file(source, text_encoder)
    if not text_encoder:
        metadata['config'] = {k: v for k, v in metadata['config'].items() if k != 'text_encoder'}
        tensors = {k: v for k, v in tensors.items() if not k.startswith('text_encoder.')}
    with torch.device('meta'):
        model = model_type(**metadata['config'])
    # Only base files carry a format; the others are known to their owners by the public names.
    spell = str if 'format' in metadata else reference_keys.public_name
    try:
        check_fit(model.state_dict(), tensors, name, spell)
    except UserError as error:
        hint = '' if isinstance(source, Mapping) else size_hint(Path(source))
        raise UserError(f'{error}{hint}') from error
    return model, tensors, metadata


def load_seem(model_type: Callable[..., Model], source: Source, text_encoder: bool = True) -> Model:
    """Build a `SEEM` and fill it; see `SEEM.from_checkpoint`.

    No weights are made before: the model takes over the tensors that were read. Those of a dict are
    copied, and those stored in less than float32 are widened, one by one.
    """
    model, tensors, _ = read_model(model_type, source, text_encoder)
    dtypes = {value.dtype for value in tensors.values() if value.is_floating_point()}
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    copy = isinstance(source, Mapping)
    for name, value in tensors.items():
        wanted = dtype if value.is_floating_point() else value.dtype
        tensors[name] = value.detach().to(wanted, copy=copy)
    model.load_state_dict(tensors, assign=True)
    return model.eval()
