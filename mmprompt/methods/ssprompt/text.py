"""Class embeddings for the semantic prompt, made by a text encoder that leaves memory at once."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mmprompt.common.checkpoint import fingerprint, resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import Names, TextBank
from mmprompt.foundation.seem.checkpoint import read_base
from mmprompt.foundation.seem.templates import seem_templates
from mmprompt.registry import MODELS

PREFIX = 'text_encoder.'


def encode_names(
    names: Names,
    tensors: Mapping[str, Tensor],
    config: Mapping,
    templates: Sequence[str] | None = None,
) -> TextBank:
    """Bank of `names`, from the cache or from the text encoder of a base file.

    Args:
        names: C classes, each a name or a list of synonyms.
        tensors: of the base file; those of the text encoder are used.
        config: constructor dicts of the base file; `text_encoder` is built, if the bank is not
            cached, and dropped before this returns.
        templates: sentences with one '{}'; SEEM's 81 if None, ('{}',) for the bare name.

    Raises:
        UserError: the base has no text encoder, or its vocabulary lacks a word.
    """
    weights = {k[len(PREFIX) :]: v for k, v in tensors.items() if k.startswith(PREFIX)}
    if not weights or not config.get('text_encoder'):
        raise UserError(
            f'The base file has no text encoder (no tensor under {PREFIX!r}), which is needed for '
            f'the embeddings of the {len(names)} class names. Use a base file with one, or give '
            f'the head a text_bank file.'
        )
    templates = seem_templates() if templates is None else tuple(templates)

    def encode() -> Tensor:
        encoder = MODELS.build(config['text_encoder']).eval().requires_grad_(False)
        encoder.load_state_dict(weights)
        return encoder.class_embeddings(names, templates)

    return TextBank.cached(names, templates, fingerprint(weights), encode)


def make_text_bank(names: Names, base: str, templates: Sequence[str] | None = None) -> TextBank:
    """Bank of `names` from a base file, given as a path or as ``mmprompt://NAME``."""
    tensors, metadata = read_base(resolve_weights(base))
    return encode_names(names, tensors, metadata['config'], templates)


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
    return TextBank.load(spec) if isinstance(spec, str) else make_text_bank(**spec)
