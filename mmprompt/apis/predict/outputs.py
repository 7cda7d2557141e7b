"""Where predictions are written: one folder per prompt set, files that are whole or not there."""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmprompt.apis.inference.overlays import draw_overlay, label_image, palette_of, regions_of
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file, write_json
from mmprompt.methods.ssprompt.prompt_sets import PromptSet

RUN = 'run.json'


class Place(NamedTuple):
    """Where a picture is from, and where its results go.

    Attributes:
        path: the file.
        name: what its results are called, a path without suffix.
        frame: its number in a video, or None.
    """

    path: Path
    name: PurePosixPath
    frame: int | None = None

    @property
    def origin(self) -> str:
        """The file, and the frame behind a #."""
        number = '' if self.frame is None else f'#{self.frame}'
        return f'{os.path.abspath(self.path)}{number}'


class ResultSet(NamedTuple):
    """What the results of one folder are of.

    Attributes:
        task: 'semantic', 'panoptic' or 'instance'.
        classes: C names.
        things: indices of countable classes.
    """

    task: str
    classes: Sequence[str]
    things: Sequence[int]


class OutputFolder:
    """A folder of predictions that were made alike.

    ``run.json`` tells how: base, prompt files, task, options. A call with the same goes on in the
    folder, and a picture counts as done once its JSON files, written last, are there and name the
    same file of the same size and time. A call with other settings is refused.

    Args:
        root: the folder.
        sets: what is written, by name.
        run: what decides the answers, plain values.
        force: take the folder over, and write anew what is there.

    Raises:
        UserError: the folder holds predictions that were made otherwise, or it is a file.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        sets: Mapping[str, ResultSet],
        run: Mapping[str, Any],
        force: bool = False,
    ) -> None:
        self.root, self.force = Path(root).expanduser(), force
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f'--out {root}: expected a folder, found a file. Name a folder.')
        self._folders = {name: self.root / _safe(name) for name in sets}
        if len({str(f).lower() for f in self._folders.values()}) < len(self._folders):
            raise UserError(
                f'prompt sets: expected names that differ as folders, found '
                f'{", ".join(self._folders)}. Name them: NAME=FILE.'
            )
        self._sets, self._run = dict(sets), dict(run)
        self._check(self._run)

    def begin(self) -> None:
        """Write what the whole folder is of; nothing is written before."""
        write_json(self.root / RUN, self._run)
        for name, each in self._sets.items():
            described = dict(
                classes=[
                    dict(id=i, name=c, color=list(colour), isthing=int(i in each.things))
                    for i, (c, colour) in enumerate(zip(each.classes, palette_of(each.classes)))
                ],
                task=each.task,
            )
            write_json(self._folders[name] / 'classes.json', described)

    def _check(self, run: dict) -> None:
        path = self.root / RUN
        if self.force or not path.is_file():
            return
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = {}
        differ = sorted(k for k in run | found if run.get(k) != found.get(k))
        if differ:
            raise UserError(
                f'--out {self.root}: expected a new folder, or one of the same base, prompts and '
                f'options, found predictions made with another {", ".join(differ)}. Give another '
                f'folder, or --force to write over it.'
            )

    def has(self, item: Place) -> bool:
        """Whether a picture is done.

        Raises:
            UserError: results of that name are of another file.
        """
        if self.force:
            return False
        for folder in self._folders.values():
            record = folder / 'segments' / f'{item.name}.json'
            try:
                found = json.loads(record.read_text())
            except (OSError, ValueError):
                return False
            if found.get('image') != item.origin:
                raise UserError(
                    f'{item.origin}: expected its results at {record} to be new, found those of '
                    f'{found.get("image")}. Give another --out, or --force to write over them.'
                )
            if found.get('file') != _stamp(item.path):
                return False
        return True

    def write(
        self, item: Place, picture: np.ndarray, predictions: Mapping[str, Prediction]
    ) -> None:
        """Write one picture's overlays, label maps and JSON files.

        Args:
            item: where it is from.
            picture: RGB (H, W, 3) uint8.
            predictions: by prompt set.
        """
        for key, prediction in predictions.items():
            folder = self._folders[key]
            overlay = Image.fromarray(draw_overlay(picture, regions_of(prediction)))
            _save(overlay, folder / 'overlays' / f'{item.name}.png')
            if prediction.label_map is not None:
                _save(label_image(prediction), folder / 'labels' / f'{item.name}.png')
            found = dict(image=item.origin, file=_stamp(item.path), **prediction.as_dict())
            write_json(folder / 'segments' / f'{item.name}.json', found)


def _stamp(path: Path) -> list[int]:
    """What changes when a file does: size in bytes, time in nanoseconds."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())


def _safe(name: str) -> str:
    """A name as one folder."""
    return re.sub(r'[^\w.-]+', '_', name).strip('.') or '_'


def describe_sets(segment: Any) -> dict[str, Any]:
    """What decides the answers of an `Inferencer` with a base, or of the like, plain values."""
    described = {
        name: dict(
            classes=list(each.classes),
            things=list(segment.things[name]),
            method=each.method,
            file=each.file,
            sha256=_digest(each),
        )
        for name, each in segment.many.sets.items()
    }
    return dict(base=segment.many.fingerprint, sets=described)


def _digest(prompts: PromptSet) -> str:
    digest = hashlib.sha256()
    for value in (prompts.semantic, *prompts.spatial.values()):
        digest.update(value.cpu().double().numpy().tobytes())
    return digest.hexdigest()
