"""From class names to a text bank, by a text encoder that exists only while it is needed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmprompt.common.checkpoint import read_metadata, resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import MENDED_BY, Names, TextBank
from mmprompt.foundation.seem.checkpoint import FORMAT, KIND, check_fit, read_base
from mmprompt.foundation.seem.templates import check_templates, seem_templates
from mmprompt.foundation.seem.tokenizer import flatten_names
from mmprompt.registry import MODELS

PREFIX = 'text_encoder.'
# Counts up whenever equal weights, names and templates give other rows than before.
METHOD = 1
Progress = Callable[[int, int], None]


def encoder_fingerprint(metadata: Mapping) -> str:
    """What decides the rows besides names and templates (SHA-256, hex).

    Made from the fingerprint of the whole base, which is known before any tensor is read, and the
    constructor arguments of the text encoder: heads and kept tokens are not visible in the weights.

    Args:
        metadata: `fingerprint` and `config` of a base file, as `read_base` returns them.
    """
    content = [METHOD, metadata['fingerprint'], metadata['config']['text_encoder']]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode_names(
    names: Names,
    tensors: Mapping[str, Tensor],
    metadata: Mapping,
    templates: Sequence[str] | None = None,
) -> TextBank:
    """Bank of `names`, from the cache or from the text encoder of a base that is in memory.

    Args:
        names: C classes, each a name or a list of synonyms.
        tensors: of the base; those of the text encoder are used, if the bank is not cached.
        metadata: `fingerprint` and `config` of the base, as `read_base` returns them.
        templates: sentences with one '{}'; SEEM's 81 if None, ('{}',) for the bare name.

    Raises:
        UserError: the base has no text encoder, its vocabulary lacks a word, or a name or a
            template cannot be used.
    """
    return _bank(names, templates, metadata, lambda: tensors, logged_progress())


def make_text_bank(
    names: Names,
    base: str | os.PathLike,
    templates: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> TextBank:
    """Bank of `names` from a base file, given as a path or as ``mmprompt://NAME``.

    When the bank is cached, only the header of a safetensors base is read.

    Args:
        names: C classes, each a name or a list of synonyms.
        base: a base file or a public SEEM checkpoint.
        templates: as in `encode_names`.
        progress: called with the numbers of encoded and of all texts; None logs every few seconds.

    Raises:
        UserError: as `encode_names`, or the base cannot be read.
    """
    progress = progress or logged_progress()
    metadata = _header(base)
    if metadata is not None:
        return _bank(names, templates, metadata, lambda: read_base(base)[0], progress)
    tensors, metadata = read_base(base)
    return _bank(names, templates, metadata, lambda: tensors, progress)


def text_bank_of(spec: str | Mapping | None) -> TextBank:
    """Read or make the bank that `SEEMPromptHead.text_bank` describes.

    Args:
        spec: path of a bank's file, or the arguments of `make_text_bank`.

    Raises:
        UserError: nothing is given, or what is given cannot be read.
    """
    if spec is None:
        raise UserError(
            'SEEMPromptHead has no class embeddings. Use it inside SSPromptSegmentor, or give '
            'decode_head.text_bank: the path of a text bank, or dict(names=[…], base=…).'
        )
    return make_text_bank(**spec) if isinstance(spec, Mapping) else TextBank.load(spec)


def fitting_text_bank(spec: str | Mapping, classes: Sequence[str], metadata: Mapping) -> TextBank:
    """The bank of `text_bank_of`, checked against the model that it is to serve.

    Args:
        spec: see `text_bank_of`.
        classes: of the dataset, in order; the first synonyms of the bank.
        metadata: `fingerprint` and `config` of the base, as `read_base` returns them.

    Raises:
        UserError: it cannot be read, has other classes, or was made by another text encoder than
            the one in the base.
    """
    bank = text_bank_of(spec)
    bank.check(classes)
    if metadata['config'].get('text_encoder'):
        expected, found = encoder_fingerprint(metadata), bank.encoder_fingerprint
        if expected != found:
            raise UserError(
                f'text_bank {spec}: expected rows of the text encoder of this base '
                f'({expected[:12]}), found those of another one ({found[:12]}). Make it again with '
                f'{MENDED_BY} and this base.'
            )
    return bank


def logged_progress(every: float = 5.0) -> Progress:
    """A callback that logs at most once in `every` seconds, and nothing about short work."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            print_log(f'class names: {done} of {total} texts are encoded', 'current')

    return progress


def _header(base: str | os.PathLike) -> dict | None:
    """`fingerprint` and `config` of one of our base files, its tensors unread; None for others.

    What the header says of the tensors is checked when they are read, and only then is a bank
    written under that fingerprint.
    """
    try:
        path = resolve_weights(base)
        metadata = read_metadata(path) if path.suffix == '.safetensors' else {}
        if (metadata.get('kind'), metadata.get('format')) != (KIND, FORMAT):
            return None
        return dict(fingerprint=metadata['fingerprint'], config=json.loads(metadata['config']))
    except (UserError, KeyError, ValueError):
        return None  # `read_base` says what is wrong


def _bank(
    names: Names,
    templates: Sequence[str] | None,
    metadata: Mapping,
    tensors: Callable[[], Mapping[str, Tensor]],
    progress: Progress,
) -> TextBank:
    config = metadata['config'].get('text_encoder')
    if not config:
        raise _no_encoder(names)
    flatten_names(names)
    templates = check_templates(seem_templates() if templates is None else templates)

    @torch.no_grad()
    def encode() -> Tensor:
        given = {k[len(PREFIX) :]: v for k, v in tensors().items() if k.startswith(PREFIX)}
        if not given:
            raise _no_encoder(names)
        with torch.device('meta'):  # no random weights for what is filled at once
            encoder = MODELS.build(config).eval()
        check_fit(encoder.state_dict(), given, 'The text encoder of the base')
        encoder.load_state_dict({k: v.float() for k, v in given.items()}, assign=True)
        return encoder.class_embeddings(names, templates, progress)

    return TextBank.cached(names, templates, encoder_fingerprint(metadata), encode)


def _no_encoder(names: Names) -> UserError:
    return UserError(
        f'The base file has no text encoder (no tensor under {PREFIX!r}), which is needed for the '
        f'embeddings of the {len(names)} class names. Use a base file with one, or give the head a '
        f'text_bank file.'
    )
