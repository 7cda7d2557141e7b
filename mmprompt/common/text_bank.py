"""Class embeddings, computed once by a text encoder that then leaves memory."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmprompt.common.checkpoint import load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.files import cache_root

KIND = 'text_bank'
# One class is a name, or several names that mean the same.
Names = Sequence[str | Sequence[str]]


@dataclass
class TextBank:
    """Embeddings of class names.

    Attributes:
        names: C classes, each a name or a list of synonyms.
        embeddings: (C + 1, D); the last row is the no-object class, "background".
        encoder_fingerprint: of the text encoder's weights.
    """

    names: Names
    embeddings: Tensor
    encoder_fingerprint: str

    def __post_init__(self) -> None:
        expected, found = len(self.names) + 1, len(self.embeddings)
        if expected != found:
            raise UserError(
                f'text bank: expected {expected} rows for {len(self.names)} classes and the '
                f'no-object class, found {found}. Compute it again for these classes.'
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The first name of each class."""
        return tuple(n if isinstance(n, str) else n[0] for n in self.names)

    def check(self, classes: Sequence[str]) -> None:
        """Compare with a dataset's classes.

        Raises:
            UserError: naming the first class that differs.
        """
        for i in range(max(len(classes), len(self.classes))):
            wanted = classes[i] if i < len(classes) else None
            found = self.classes[i] if i < len(self.classes) else None
            if wanted != found:
                raise UserError(
                    f'text bank: expected class {i} of {len(classes)} to be {wanted!r} as in the '
                    f'dataset, found {found!r} ({len(self.classes)} classes). Give the model the '
                    f"dataset's classes in the same order."
                )

    def save(self, path: str | os.PathLike) -> Path:
        """Write the bank as safetensors, atomically."""
        metadata = {
            'format': '1',
            'kind': KIND,
            'names': json.dumps(_lists(self.names), ensure_ascii=False),
            'encoder_fingerprint': self.encoder_fingerprint,
        }
        return save_tensors(path, {'embeddings': self.embeddings}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'TextBank':
        """Read a bank.

        Raises:
            UserError: if the file is missing, cut or no text bank.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get('kind') != KIND or metadata.get('format') != '1':
            raise UserError(
                f'{path}: expected a text bank of format 1, found kind {metadata.get("kind")!r} of '
                f'format {metadata.get("format")!r}. Delete it; it will be computed again.'
            )
        names = json.loads(metadata['names'])
        return cls(names, tensors['embeddings'], metadata['encoder_fingerprint'])

    @classmethod
    def cached(
        cls,
        names: Names,
        templates: Sequence[str],
        encoder_fingerprint: str,
        encode: Callable[[], Tensor],
        root: str | os.PathLike | None = None,
    ) -> 'TextBank':
        """Return the bank for these names, computing it only if no earlier run has.

        Args:
            names: C classes.
            templates: sentence templates that ``encode`` uses.
            encoder_fingerprint: of the text encoder's weights.
            encode: makes the (C + 1, D) embeddings; called when the bank is not on disk.
            root: the cache folder; `cache_root` by default.
        """
        content = json.dumps([_lists(names), list(templates), encoder_fingerprint])
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        path = Path(root or cache_root()) / 'text' / f'{key}.safetensors'
        try:
            bank = cls.load(path)
            if _lists(bank.names) == _lists(names):
                return bank
        except (UserError, KeyError, ValueError):
            pass  # not there, or damaged: made again
        bank = cls(names, encode().detach().cpu(), encoder_fingerprint)
        try:
            bank.save(path)
        except OSError:
            pass  # a cache that cannot be written costs time, never the run
        return bank


def _lists(names: Names) -> list:
    return [n if isinstance(n, str) else list(n) for n in names]
