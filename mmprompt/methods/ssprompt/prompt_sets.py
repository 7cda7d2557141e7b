"""A prompt file made ready for a frozen base, from its recipe alone: no config, no segmentor.

What a prompt learned acts in two places: rows of class embeddings, and what the decoder's queries
start from. Both are fixed once the file is read, so here they are plain tensors.

Notation: C classes, N prompts, D channels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmprompt.common.checkpoint import resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.common.text_bank import Names
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import check_fit, read_base
from mmprompt.foundation.seem.class_names import encode_names
from mmprompt.methods.ssprompt.prompts import DefaultPrompt
from mmprompt.registry import MODELS

TEXT = 'text_encoder.'
PARTS = ('spatial_prompt', 'semantic_prompt')


@dataclass
class PromptSet:
    """One class list under one prompt.

    Attributes:
        name: what results are found under.
        classes: C names.
        semantic: (C+1, D) class embeddings, "no object" last.
        spatial: what the decoder starts from, see `SEEMDecoder.forward`; empty for its own queries.
        method: 'SSPrompt', …, or 'zero-shot'.
        file: where it was read, or None.
        things: names of the classes that its training counted one by one; None if it had no such.
    """

    name: str
    classes: tuple[str, ...]
    semantic: Tensor
    spatial: dict[str, Tensor] = field(default_factory=dict)
    method: str = 'zero-shot'
    file: str | None = None
    things: tuple[str, ...] | None = None


class FrozenBase:
    """A SEEM without its language side, and what makes prompt sets for it.

    Args:
        source: path of a base file or of a public SEEM checkpoint, or ``mmprompt://NAME``.

    Attributes:
        seem: the frozen model in eval mode, in float32 unless stored wider.
        fingerprint: of the base, to which prompt files are tied.

    Raises:
        UserError: the base is missing, damaged, or no SEEM.
    """

    def __init__(self, source: str | os.PathLike) -> None:
        tensors, metadata = read_base(resolve_weights(source))
        config = {k: v for k, v in metadata['config'].items() if k != 'text_encoder'}
        with torch.device('meta'):  # no random weights for what is filled at once
            seem = SEEM(**config)
        own = {k: v for k, v in tensors.items() if not k.startswith(TEXT)}
        check_fit(seem.state_dict(), own, str(source))
        own = {k: _widened(v) for k, v in own.items()}
        seem.load_state_dict(own, assign=True)
        self.seem: SEEM = seem.eval().requires_grad_(False)
        self.fingerprint: str = metadata['fingerprint']
        self._metadata = metadata
        self._text = {k: v for k, v in tensors.items() if k.startswith(TEXT)}

    def forget_text(self) -> None:
        """Let go of the text encoder's weights; no further set can be made."""
        self._text = {}

    def zero_shot(
        self, name: str, texts: Names, templates: Sequence[str] | None = None
    ) -> PromptSet:
        """The frozen model's own answer for class names, each a name or a list of synonyms.

        Raises:
            UserError: the base has no text encoder, or it does not know a word.
        """
        try:
            bank = encode_names(texts, self._text, self._metadata, templates)
        except UserError as error:
            raise UserError(f'prompt set {name!r}: {error}') from error
        return PromptSet(name, bank.classes, bank.embeddings.to(self._like))

    @torch.no_grad()
    def learned(self, name: str, prompt: PromptFile) -> PromptSet:
        """What a prompt file holds, blended with this base's own rows as its recipe says.

        Raises:
            UserError: naming the file: it belongs to another base, its tensors and its recipe do
                not fit each other, or it changes more than prompts.
        """
        where = prompt.path or name
        prompt.check(
            base_fingerprint=self.fingerprint,
            classes=prompt.classes,
            shapes={k: tuple(v.shape) for k, v in prompt.tensors.items()},
        )
        text = prompt.recipe.get('text') or {}
        texts, templates = text.get('texts') or prompt.classes, text.get('templates')
        try:
            bank = encode_names(texts, self._text, self._metadata, templates)
            parts = self._build(prompt, texts, where)
        except UserError as error:
            raise UserError(_led_by(str(where), str(error))) from error
        self._take(prompt, parts, where)
        decoder, rows = self.seem.decoder, bank.embeddings.to(self._like)
        spatial, semantic = (parts[part].eval() for part in PARTS)
        semantic.fill(rows[:-1])
        spatial.fill(spatial.source.default(decoder, spatial.num_prompts))
        packed = {}
        if not isinstance(spatial, DefaultPrompt) or spatial.source.needs_object_tokens:
            packed = spatial.source.pack(spatial(), decoder)
        return PromptSet(
            name,
            tuple(prompt.classes),
            torch.cat([semantic().to(rows), rows[-1:]]),  # (C+1, D)
            {key: value.clone() for key, value in packed.items()},
            prompt.method,
            None if prompt.path is None else str(prompt.path),
            tuple(prompt.recipe['things']) if 'things' in prompt.recipe else None,
        )

    @property
    def _like(self) -> Tensor:
        return self.seem.decoder.class_embed

    def _build(self, prompt: PromptFile, texts: Names, where: object) -> nn.ModuleDict:
        """Both prompts by the recipe, not yet filled."""
        missing = [part for part in PARTS if part not in prompt.recipe]
        if missing:
            raise UserError(
                f'{where}: expected a recipe with {" and ".join(PARTS)}, found none for '
                f'{" and ".join(missing)}. Give a prompt file that training wrote.'
            )
        sizes = dict(
            spatial_prompt=dict(dim=self.seem.decoder.dim),
            semantic_prompt=dict(num_prompts=len(prompt.classes), dim=self._like.shape[1]),
        )
        parts = {}
        for part in PARTS:
            config = {**sizes[part], **prompt.recipe[part]}
            try:
                kind = MODELS.get(config.get('type', ''))
                needs_words = getattr(kind, 'needs_text_encoder', False)
                if needs_words:
                    config['text_encoder'] = self._metadata['config'].get('text_encoder')
                parts[part] = MODELS.build(config)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f'{where}: expected a recipe that this version can follow, found {part} '
                    f'{prompt.recipe[part]} ({error}). Update mmprompt, or import the module that '
                    f'registers its type.'
                ) from error
            if needs_words:
                self._give_words(parts[part], texts)
        return nn.ModuleDict(parts).to(self._like)

    def _give_words(self, prompt: nn.Module, texts: Names) -> None:
        given = {k[len(TEXT) :]: _widened(v) for k, v in self._text.items()}
        check_fit(prompt.text_encoder.state_dict(), given, 'The text encoder of the base')
        prompt.text_encoder.load_state_dict(given)
        prompt.read(texts)

    def _take(self, prompt: PromptFile, parts: nn.ModuleDict, where: object) -> None:
        own = {k: v for k, v in parts.state_dict().items() if f'.{TEXT}' not in k}
        beyond = sorted(k for k in prompt.tensors if not k.startswith(PARTS))
        if beyond:
            raise UserError(
                f'{where}: expected the tensors of prompts, which many tasks can have at once on '
                f'one frozen model, found parts of the model itself: {", ".join(beyond[:3])}'
                f'{" …" if len(beyond) > 3 else ""} ({prompt.method}). Use it with its config: '
                f'Inferencer(config, prompt).'
            )
        prompt.check(
            base_fingerprint=self.fingerprint,
            classes=prompt.classes,
            shapes={k: tuple(v.shape) for k, v in own.items()},
        )
        parts.load_state_dict(prompt.tensors, strict=False)


def _widened(value: Tensor) -> Tensor:
    """Stored in less than float32 -> float32."""
    narrow = value.is_floating_point() and value.element_size() < 4
    return value.float() if narrow else value


def _led_by(where: str, message: str) -> str:
    return message if message.startswith(where) else f'{where}: {message}'


@torch.no_grad()
def class_weights(prompt: PromptFile) -> Tensor | None:
    """The learned weight w of each class (C,), Eq. 6; None where the file learned none.

    w multiplies the learned embedding; 1 - w multiplies that of the class name.
    """
    key = 'semantic_prompt.weight.'
    tensors = {k[len(key) :]: v for k, v in prompt.tensors.items() if k.startswith(key)}
    config = prompt.recipe.get('semantic_prompt') or {}
    if not tensors or not config:
        return None
    sizes = dict(num_prompts=len(prompt.classes), dim=1)
    module = MODELS.build({**config, **sizes}).weight.eval()
    module.load_state_dict(tensors)
    return module()


def read_prompts(prompts: Sequence[str | os.PathLike] | Mapping) -> dict[str, PromptFile]:
    """Prompt files by name.

    Args:
        prompts: paths or `PromptFile`s, or a dict of those by name. Without a name it is that of
            the file, or of the folder where training wrote a ``prompt.safetensors``.

    Raises:
        UserError: a file cannot be used, or two have the same name.
    """
    if isinstance(prompts, (str, os.PathLike, PromptFile)):
        prompts = [prompts]
    if isinstance(prompts, Mapping):
        return {str(k): _loaded(v) for k, v in prompts.items()}
    files = [_loaded(each) for each in prompts]
    found: dict[str, PromptFile] = {}
    for name, file in zip(_names(files), files):
        if name in found:
            raise UserError(
                f'{file.path}: expected prompt files of different names, found two named {name!r} '
                f'(the other is {found[name].path}). Name them: name=path, or a dict.'
            )
        found[name] = file
    return found


def _loaded(prompt: str | os.PathLike | PromptFile) -> PromptFile:
    return prompt if isinstance(prompt, PromptFile) else PromptFile.load(prompt)


def _names(files: Sequence[PromptFile]) -> list[str]:
    """Short names: of the file, or of its folder if the file's says nothing or is shared."""
    stems = [f.path.stem if f.path else f.method for f in files]
    plain = [stem == 'prompt' or stems.count(stem) > 1 for stem in stems]
    return [
        (f.path.resolve().parent.name or stem) if dull and f.path else stem
        for f, stem, dull in zip(files, stems, plain)
    ]
