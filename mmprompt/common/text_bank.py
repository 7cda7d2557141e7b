"""Class embeddings, computed once by a text encoder that then leaves memory."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmprompt.common.checkpoint import fingerprint, load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.files import cache_root

FORMAT, KIND = '2', 'text_bank'
MENDED_BY = 'tools/encode_class_names.py'
# One class is a name, or several names that mean the same.
Names = Sequence[str | Sequence[str]]


@dataclass
class TextBank:
    """Embeddings of class names.

    Attributes:
        names: C classes, each a name or a list of synonyms.
        embeddings: (C + 1, D); the last row is the no-object class, "background".
        encoder_fingerprint: of the text encoder.
        templates: the sentences that stood around the names.
    """

    names: Names
    embeddings: Tensor
    encoder_fingerprint: str
    templates: Sequence[str] = ()

    def __post_init__(self) -> None:
        expected, found = len(self.names) + 1, tuple(self.embeddings.shape)
        if len(found) != 2 or found[0] != expected:
            raise UserError(
                f'text bank: expected {expected} rows for {len(self.names)} classes and the '
                f'no-object class, found the shape {found}. Compute it again for these classes.'
            )
        if not torch.isfinite(self.embeddings).all():
            wrong = int(torch.isfinite(self.embeddings).all(1).logical_not().nonzero()[0])
            name = [*self.classes, 'no-object'][wrong]
            raise UserError(
                f'text bank: expected finite numbers, found others in row {wrong} ({name!r}). '
                f'Check the weights of the text encoder.'
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
        tensors = {'embeddings': self.embeddings}
        metadata = {
            'format': FORMAT,
            'kind': KIND,
            'names': json.dumps(_lists(self.names), ensure_ascii=False),
            'templates': json.dumps(list(self.templates), ensure_ascii=False),
            'encoder_fingerprint': self.encoder_fingerprint,
            'fingerprint': fingerprint(tensors),
        }
        return save_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'TextBank':
        """Read a bank.

        Raises:
            UserError: if the file is missing, cut, changed or no text bank.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get('kind') != KIND or metadata.get('format') != FORMAT:
            raise UserError(
                f'{path}: expected a text bank of format {FORMAT}, found kind '
                f'{metadata.get("kind")!r} of format {metadata.get("format")!r}. Write it with '
                f'{MENDED_BY}.'
            )
        try:
            if metadata['fingerprint'] != fingerprint(tensors):
                raise ValueError('other numbers than were written')
            names, templates = (json.loads(metadata[key]) for key in ('names', 'templates'))
            return cls(names, tensors['embeddings'], metadata['encoder_fingerprint'], templates)
        except UserError as error:
            raise UserError(f'{path}: {error}') from error
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f'{path}: expected a text bank, found a damaged one ({error}). Write it again with '
                f'{MENDED_BY}.'
            ) from error

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

        An entry that is damaged, or of another bank, is written anew. Processes that compute the
        same entry at once each rename a whole file to its place.

        Args:
            names: C classes.
            templates: sentence templates that ``encode`` uses.
            encoder_fingerprint: of the text encoder.
            encode: makes the (C + 1, D) embeddings; called when the bank is not on disk.
            root: the cache folder; `cache_root` by default.
        """
        content = [_lists(names), list(templates), encoder_fingerprint]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        path = Path(root or cache_root()) / 'text' / f'{key}.safetensors'
        try:
            bank = cls.load(path)
            if [_lists(bank.names), bank.templates, bank.encoder_fingerprint] == content:
                return bank
        except (UserError, OSError):
            pass  # not there, or damaged: made again
        bank = cls(names, encode().detach().cpu(), encoder_fingerprint, list(templates))
        try:
            bank.save(path)
        except OSError as error:  # a cache that cannot be written costs time, never the run
            print_log(
                f'class embeddings are not kept for the next run: {path}: {error}. Give '
                f'MMPROMPT_CACHE a folder that can be written.',
                'current',
                logging.WARNING,
            )
        return bank


def _lists(names: Names) -> list:
    return [n if isinstance(n, str) else list(n) for n in names]
