"""Reading and writing whole SEEM models: the public files, and our base files.

A base file is safetensors with string metadata: `format` ('1'), `kind` ('seem'), `config` (JSON of
the constructor dicts of `SEEM`), `fingerprint`, `record` (JSON, how the weights came to be).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mmprompt.common.checkpoint import fingerprint, load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import reference_keys

FORMAT, KIND = '1', 'seem'


def save_base(
    path: str | os.PathLike, model: nn.Module, config: Mapping, record: Mapping | None = None
) -> Path:
    """Write a base file, atomically.

    Args:
        path: the safetensors file.
        model: a `SEEM`.
        config: the constructor dicts that build it again.
        record: facts about the weights, JSON-able.
    """
    tensors = model.state_dict()
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
    tensors, metadata = load_tensors(path)
    if reference_keys.is_reference(tensors):
        tensors, config = from_reference(tensors, str(path))
        return tensors, dict(config=config, record={}, fingerprint=fingerprint(tensors))
    kind, version = metadata.get('kind'), metadata.get('format')
    if kind != KIND or version is None:
        raise UserError(
            f'{path}: expected a SEEM base file or a public SEEM checkpoint, found '
            f'{"a file of kind " + repr(kind) if kind else "other tensors"} (first: '
            f'{next(iter(tensors), None)!r}). Give a base file of mmprompt or seem_focal*.pt.'
        )
    if version != FORMAT:
        raise UserError(
            f'{path}: expected base file format {FORMAT}, found {version}. Update mmprompt.'
        )
    found = fingerprint(tensors)
    if found != metadata['fingerprint']:
        raise UserError(
            f'{path}: the weights do not match their fingerprint (expected '
            f'{metadata["fingerprint"][:12]}, found {found[:12]}). Copy the file again.'
        )
    decoded = {name: json.loads(metadata[name]) for name in ('config', 'record')}
    return tensors, {**metadata, **decoded}


def from_reference(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict]:
    """Rename a public state dict and read its sizes.

    Args:
        tensors: flat state dict under the reference's names.
        source: what to call it in errors.

    Returns:
        Tensors in our names, and the constructor dicts of `SEEM`.

    Raises:
        UserError: names that are neither ours nor known to be of no use.
    """
    ours, unknown = {}, []
    for key, value in tensors.items():
        if key.startswith(reference_keys.IGNORED):
            continue
        name = reference_keys.to_ours(key)
        if name is None:
            unknown.append(key)
        else:
            ours[name] = value
    config = reference_keys.config_from_shapes(ours)
    if unknown:
        raise UserError(f'{source}: unknown tensors {shortened(unknown)}; not a SEEM v0 or v1.')
    return ours, config


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
    found = '; '.join(f'{k} {len(names)}: {shortened(names)}' for k, names in wrong.items() if names)
    if found:
        raise UserError(
            f'{source} does not fit the model: {found}. Give the weights of this very model, or '
            f'build the model that the weights belong to.'
        )


def shortened(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    text = ', '.join(names[:most])
    return text if len(names) <= most else f'{text} and {len(names) - most} more'


def load_seem(source: str | os.PathLike | Mapping[str, Tensor], text_encoder: bool = True):
    """Build a `SEEM` and fill it; see `SEEM.from_checkpoint`."""
    from mmprompt.foundation.seem.seem import SEEM

    if isinstance(source, Mapping):
        name = 'The state dict'
        if not reference_keys.is_reference(source):
            raise UserError(
                'The state dict has no key under "sem_seg_head."; expected the flat state dict of '
                'a public SEEM checkpoint. For our own base files give the path.'
            )
        tensors, config = from_reference(source, name)
        tensors = {key: value.clone() for key, value in tensors.items()}
    else:
        name = str(source)
        tensors, metadata = read_base(source)
        config = metadata['config']
    if not text_encoder:
        config = {key: value for key, value in config.items() if key != 'text_encoder'}
        tensors = {k: v for k, v in tensors.items() if not k.startswith('text_encoder.')}
    with torch.device('meta'):
        model = SEEM(**config)
    check_fit(model.state_dict(), tensors, name)
    model.load_state_dict(tensors, assign=True)
    return model.eval()
