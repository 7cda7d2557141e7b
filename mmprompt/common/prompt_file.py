"""Prompt files: what was learned, and nothing that was frozen."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmprompt.common.checkpoint import load_tensors, read_metadata, save_tensors
from mmprompt.common.errors import UserError

FORMAT = 1
#: What a training writes into its work directory, by `PromptFile.kind`.
PROMPT_FILE, HEAD_FILE = 'prompt.safetensors', 'head.safetensors'


@dataclass
class PromptFile:
    """The learned tensors of one training and what they belong to.

    Attributes:
        tensors: the trained parameters by name; kept as float32.
        method: the method's name, such as 'SSPrompt'.
        classes: the class names, in the order of the tensors' class axis.
        base_fingerprint: `checkpoint.fingerprint` of the frozen base.
        recipe: how it was trained, plain JSON values.
        kind: 'prompt', or 'head' for a trained head that belongs to the same base.
    """

    tensors: dict[str, Tensor]
    method: str
    classes: Sequence[str]
    base_fingerprint: str
    recipe: dict = field(default_factory=dict)
    path: Path | None = None
    kind: str = 'prompt'

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file atomically: 4 bytes per parameter plus names and recipe."""
        tensors = {k: v.detach().to('cpu', torch.float32) for k, v in self.tensors.items()}
        metadata = {
            'format': str(FORMAT),
            'kind': self.kind,
            'method': self.method,
            'classes': json.dumps(list(self.classes), ensure_ascii=False),
            'base_fingerprint': self.base_fingerprint,
            'recipe': json.dumps(self.recipe, ensure_ascii=False),
        }
        return save_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike, kinds: Sequence[str] = ('prompt',)) -> 'PromptFile':
        """Read a prompt file.

        Args:
            path: the file.
            kinds: what may be in it.

        Raises:
            UserError: if it is missing, cut, something else, or of a newer format.
        """
        path = Path(path)
        metadata = read_metadata(path)
        kind = metadata.get('kind')
        if kind not in kinds or 'format' not in metadata:
            found = f'weights of kind {kind!r}' if kind else 'other weights'
            raise UserError(
                f'{path}: expected a {kinds[0]} file, found {found}. Give the '
                f'{kinds[0]}.safetensors that training wrote into its work directory.'
            )
        number = metadata['format']
        if not number.isdecimal() or int(number) > FORMAT:
            raise UserError(
                f'{path}: expected a prompt file of format {FORMAT}, found format {number}. Update '
                f'mmprompt to read it, or train the prompt with this version.'
            )
        try:
            return cls(
                tensors=load_tensors(path)[0],
                method=metadata['method'],
                classes=tuple(json.loads(metadata['classes'])),
                base_fingerprint=metadata['base_fingerprint'],
                recipe=json.loads(metadata['recipe']),
                path=path,
                kind=kind,
            )
        except (KeyError, ValueError) as error:
            raise UserError(
                f'{path}: expected method, classes, base_fingerprint and recipe in its metadata, '
                f'found {sorted(metadata)} ({error}). Write the file again with mmprompt.'
            ) from error

    def check(
        self,
        *,
        base_fingerprint: str,
        classes: Sequence[str] | None,
        shapes: Mapping[str, Sequence[int]],
        method: str | None = None,
    ) -> None:
        """Compare the file with the model that is to take it.

        Args:
            base_fingerprint: of the model's frozen base.
            classes: the model's class names, in order; None for a model that takes what was
                learned with any classes.
            shapes: the shape of every tensor that the model expects.
            method: the model's method; None accepts any.

        Raises:
            UserError: naming both sides of the first difference.
        """
        name = self.path or 'prompt'
        if method is not None and method != self.method:
            raise UserError(
                f'{name}: expected a prompt of method {method!r}, as the config says, found '
                f'{self.method!r}. Use the config that trained it.'
            )
        if base_fingerprint != self.base_fingerprint:
            raise UserError(
                f'{name}: expected a prompt for the base model with fingerprint '
                f'{base_fingerprint}, found one for {self.base_fingerprint}. Use the config and '
                f'weights that trained it, or train a prompt for this base.'
            )
        if classes is not None:
            self._check_classes(list(classes), list(self.classes), name)
        wanted = {k: tuple(v) for k, v in shapes.items()}
        found = {k: tuple(v.shape) for k, v in self.tensors.items()}
        if wanted != found:
            differ = sorted(k for k in wanted | found if wanted.get(k) != found.get(k))
            raise UserError(
                f'{name}: expected tensors of these shapes: {_shapes(wanted, differ)}, found '
                f'{_shapes(found, differ)}. Use the config that trained it.'
            )

    def _check_classes(self, wanted: list[str], found: list[str], name: object) -> None:
        if wanted == found:
            return
        if sorted(wanted) == sorted(found):
            at = next(i for i, pair in enumerate(zip(wanted, found)) if pair[0] != pair[1])
            what = f'another order: number {at} is {wanted[at]!r} in the config and {found[at]!r}'
            raise UserError(
                f'{name}: expected {len(wanted)} classes as in the config, found {what} in the '
                f'file. Put the classes of the config into the order of the file: {found}.'
            )
        here, there = set(wanted) - set(found), set(found) - set(wanted)
        raise UserError(
            f'{name}: expected a prompt for the {len(wanted)} classes of the config, found one for '
            f'{len(found)}; only in the config: {sorted(here) or "none"}; only in the file: '
            f'{sorted(there) or "none"}. Use the classes it was trained for.'
        )


def _shapes(shapes: Mapping[str, tuple], names: Sequence[str]) -> str:
    return ', '.join(f'{name} {shapes.get(name, "missing")}' for name in names)
