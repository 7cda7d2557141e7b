"""Which images a few-shot training sees, decided in the same way for everyone.

The draws use raw 64-bit words of PCG64 and the arithmetic below, nothing whose result may change
between numpy versions; images are ordered by name first, so the order of a folder does not matter.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.common.files import write_json

FORMAT = 1
SAMPLINGS = ('rarest-first', 'independent')


@dataclass
class Manifest:
    """A few-shot set.

    Attributes:
        images: the chosen names, sorted; relative to the dataset's image folder, with '/'.
        k: images per class that were asked for.
        seed: of the draws.
        sampling: 'rarest-first' or 'independent'.
        counts: per class, how many of the chosen images contain it.
        available: per class, how many images of the dataset contain it.
        dataset: 'num_images', 'names' (hash over all names), 'labels' (hash over the labels of the
            chosen images) and 'fingerprint' (hash over these).
    """

    images: list[str]
    k: int
    seed: int
    sampling: str
    counts: dict[str, int]
    available: dict[str, int]
    dataset: dict = field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Write the manifest as JSON, atomically."""
        write_json(path, {'format': FORMAT, 'kind': 'few-shot', **asdict(self)})

    @classmethod
    def load(cls, path: str | os.PathLike, command: str | None = None) -> 'Manifest':
        """Read a manifest.

        Args:
            path: the JSON file.
            command: the command that makes it; part of the error if it is missing.

        Raises:
            UserError: if the file is missing, no manifest, or of a newer format.
        """
        path = Path(path)
        make = command or f'python tools/make_few_shot_split.py CONFIG --out {path}'
        if not path.is_file():
            raise UserError(
                f'{path}: expected a few-shot manifest, found no such file. Make it: {make}'
            )
        try:
            content = json.loads(path.read_text())
            kind, number = content.pop('kind'), content.pop('format')
            if kind != 'few-shot':
                raise ValueError(f'kind {kind!r}')
            if number > FORMAT:
                raise UserError(
                    f'{path}: expected a few-shot manifest of format {FORMAT}, found format '
                    f'{number}. Update mmprompt, or make it again: {make}'
                )
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f'{path}: expected a few-shot manifest, found something else ({error}). Make it '
                f'again: {make}'
            ) from error

    def shortfall(self) -> dict[str, int]:
        """Classes of which fewer than k images were chosen, and how many were."""
        return {name: n for name, n in self.counts.items() if n < self.k}


def choose(
    names: Sequence[str],
    presence: np.ndarray,
    classes: Sequence[str],
    k: int,
    seed: int = 0,
    sampling: str = 'rarest-first',
    allow_missing: bool = False,
) -> Manifest:
    """Choose k images per class.

    'rarest-first': classes are taken from the one in the fewest images to the one in the most (ties
    in class order). Of each, images are drawn at random until k chosen ones contain it, those drawn
    for earlier classes counted. 'independent': k images are drawn for each class whatever was drawn
    for others; the set is their union. A class in fewer than k images gives all of them.

    Args:
        names: N unique image names.
        presence: (N, C) bool, whether an image contains a class.
        classes: C names.
        k: images per class.
        seed: of the draws.
        sampling: one of `SAMPLINGS`.
        allow_missing: accept classes that no image contains.

    Raises:
        UserError: for k below 1 or above N, an unknown sampling, or a class without any image.
    """
    check_request(len(names), k, sampling)
    order = np.argsort(np.asarray(names))
    presence = np.asarray(presence, bool)[order]  # (N, C) by name
    names = [names[i] for i in order]
    available = presence.sum(0)
    absent = [c for c, n in zip(classes, available) if n == 0]
    if absent and not allow_missing:
        raise UserError(
            f'few-shot split: expected at least one of the {len(names)} images to contain each '
            f'class, found none for {", ".join(absent)}. Add images or labels of it, or accept a '
            f'training that never sees it with --allow-missing (allow_missing=True).'
        )
    draw = _Draw(seed)
    chosen = np.zeros(len(names), bool)
    for c in np.argsort(available, kind='stable'):
        has = presence[:, c]
        if sampling == 'independent':
            chosen[draw.some(np.flatnonzero(has), k)] = True
        else:
            missing = k - int((has & chosen).sum())
            chosen[draw.some(np.flatnonzero(has & ~chosen), missing)] = True
    counts = presence[chosen].sum(0)
    return Manifest(
        images=[n for n, taken in zip(names, chosen) if taken],
        k=k,
        seed=seed,
        sampling=sampling,
        counts={c: int(n) for c, n in zip(classes, counts)},
        available={c: int(n) for c, n in zip(classes, available)},
    )


def dataset_record(names: Sequence[str], labels: dict[str, np.ndarray]) -> dict:
    """Describe a dataset so that another one is noticed.

    Args:
        names: all image names.
        labels: label maps (H, W) of the chosen images by name, as loaded: how a PNG was compressed
            does not matter.

    Returns:
        The entry ``dataset`` of a `Manifest`.
    """
    joined = '\n'.join(sorted(names)).encode()
    digest = hashlib.sha256()
    for name in sorted(labels):
        label = np.ascontiguousarray(labels[name], np.int64)
        digest.update(f'{name}\0{label.shape}\0'.encode() + label.tobytes())
    record = {
        'num_images': len(names),
        'names': hashlib.sha256(joined).hexdigest(),
        'labels': digest.hexdigest(),
    }
    text = json.dumps(record, sort_keys=True).encode()
    return {**record, 'fingerprint': hashlib.sha256(text).hexdigest()}


class _Draw:
    """Draws without replacement from a stream of raw 64-bit words."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)

    def some(self, items: np.ndarray, number: int) -> np.ndarray:
        """Return ``number`` of the items (all, if there are fewer), by a partial Fisher-Yates."""
        items = items.copy()
        number = max(0, min(number, len(items)))
        for i in range(number):
            j = i + self._below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:number]

    def _below(self, bound: int) -> int:
        """Return a uniform integer below ``bound``; words in the uneven rest are thrown away."""
        limit = 2**64 - 2**64 % bound
        while True:
            word = int(self._words.random_raw())
            if word < limit:
                return word % bound


def check_request(num_images: int, k: int, sampling: str) -> None:
    """Check what can be checked before labels are read.

    Raises:
        UserError: for k below 1 or above the number of images, or an unknown sampling.
    """
    if sampling not in SAMPLINGS:
        raise UserError(
            f'few-shot split: expected sampling {" or ".join(SAMPLINGS)}, found {sampling!r}. '
            f'Correct it.'
        )
    if k < 1 or k > num_images:
        raise UserError(
            f'few-shot split: expected k between 1 and the {num_images} images of the dataset, '
            f'found k={k}. Choose a smaller k, or a larger dataset.'
        )
