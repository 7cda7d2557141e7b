"""Pictures from wherever a user has them: files, folders, patterns, videos and arrays.

A picture is read as it is viewed: turned and mirrored as its EXIF orientation says. So is all that
is made of it.
"""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.inputs import read_image

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


@dataclass(frozen=True)
class Source:
    """A picture or a video that was found.

    Attributes:
        path: the file.
        name: what its results are called, a path without suffix; of a video, the folder of its
            frames.
    """

    path: Path
    name: PurePosixPath

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """RGB (H, W, 3) uint8 of an image file, as it is viewed; transparency is dropped.

    Grey of 16 bits is brought to 8.

    Raises:
        UserError: there is no such file, or it is no image, or a damaged one.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode in ('I', 'F') or picture.mode.startswith('I;16'):
                grey = np.asarray(picture).astype(np.float64)
                scale = 1 if grey.max(initial=0) <= 255 else 257
                return np.repeat((grey / scale).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
            return np.array(picture.convert('RGB'))
    except UnidentifiedImageError as error:
        raise UserError(
            f'{path}: expected an image, found something else. Remove it, or name the images.'
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(
            f'{path}: expected a whole image file, found one that cannot be read ({found}). Copy '
            f'it again, or remove it.'
        ) from error


def as_picture(array: np.ndarray) -> np.ndarray:
    """RGB values 0 to 255 of any type as (H, W, 3) uint8; those between two whole ones are rounded.

    Raises:
        UserError: it is no such image: grey, with transparency, batched, empty, of other values.
    """
    values = read_image(array)
    if values.is_floating_point():
        values = values.round()
    return np.ascontiguousarray(values.to(torch.uint8).permute(1, 2, 0).numpy())


def read_frames(path: str | os.PathLike, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """(number from 0, RGB (H, W, 3) uint8) of a video's frames, one in memory at a time.

    Args:
        path: a file that OpenCV reads.
        first: frames before it are passed over.

    Raises:
        UserError: there is no such file, or no frame can be read.
    """
    if not Path(path).is_file():
        raise UserError(f'{path}: expected a video, found no such file. Correct the path.')
    video = cv2.VideoCapture(str(path))
    try:
        number = 0
        while video.grab():
            if number >= first:
                good, bgr = video.retrieve()
                if not good:
                    break
                yield number, np.ascontiguousarray(bgr[..., ::-1])
            number += 1
        if number == 0:
            raise UserError(
                f'{path}: expected a video that OpenCV reads, found none of its frames readable. '
                f'Convert it, for example to MP4 with H.264.'
            )
    finally:
        video.release()


def find_sources(
    inputs: Iterable[str | os.PathLike], besides: str | os.PathLike | None = None
) -> list[Source]:
    """Pictures and videos in the order given, those of a folder sorted, each file once.

    A folder is searched with its subfolders; what is neither picture nor video is passed over. No
    two names are equal: files of one stem get as many of their folders, and in one folder their
    suffix, as it takes.

    Args:
        inputs: files, folders, or patterns with ``*``, ``?`` or ``**``.
        besides: a folder that is passed over where it lies in one of these, such as that of the
            results.

    Raises:
        UserError: nothing is there.
    """
    files: dict[Path, PurePosixPath] = {}
    for given in inputs:
        for path, name in _expand(str(given), besides):
            files.setdefault(path, name)
    return [Source(path, name) for path, name in zip(files, _unique(files))]


def _expand(given: str, besides: str | os.PathLike | None) -> Iterator[tuple[Path, PurePosixPath]]:
    path = Path(given).expanduser()
    if path.is_file():
        yield path, PurePosixPath(path.name)
        return
    root = path if path.is_dir() else None
    if root is not None:
        found = sorted(p for p in root.rglob('*') if p.is_file())
    else:
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
    known = (*PICTURES, *VIDEOS)
    found = [p for p in found if p.suffix.lower() in known and not p.name.startswith('.')]
    if besides is not None:
        other = Path(besides).expanduser().resolve()
        found = [p for p in found if not p.resolve().is_relative_to(other)]
    if not found:
        what = 'an empty folder' if root is not None else 'nothing'
        raise UserError(
            f'{given}: expected an image, a video, or a folder or pattern of those, found {what}. '
            f'Correct the path; suffixes are {", ".join(known)}.'
        )
    for file in found:
        inside = file.relative_to(root) if root is not None else file.name
        yield file, PurePosixPath(inside)


def _unique(files: dict[Path, PurePosixPath]) -> list[PurePosixPath]:
    """Names without suffix, no two equal, whether letters are large or small."""
    names = {path: name.with_suffix('') for path, name in files.items()}
    for same in _clashes(names, lambda path: path.resolve().parent):
        for path in same:
            names[path] = names[path].with_name(f'{names[path].name}_{path.suffix[1:]}')
    for same in _clashes(names):
        _add_folders(names, same)
    for same in _clashes(names):  # what is left differs in the size of letters alone
        for number, path in enumerate(same[1:], 2):
            names[path] = names[path].with_name(f'{names[path].name}_{number}')
    return list(names.values())


def _clashes(
    names: dict[Path, PurePosixPath], kind: Callable[[Path], object] = lambda path: None
) -> list[list[Path]]:
    """Files of one name and one kind, where there are several."""
    found: dict[tuple, list[Path]] = {}
    for path, name in names.items():
        found.setdefault((str(name).lower(), kind(path)), []).append(path)
    return [same for same in found.values() if len(same) > 1]


def _add_folders(names: dict[Path, PurePosixPath], same: list[Path]) -> None:
    """Lead the names by as many of the files' folders as tell them apart."""
    folders = {path: path.resolve().parts[1:-1] for path in same}
    own = {path: len(names[path].parts) - 1 for path in same}
    for more in range(1, max(map(len, folders.values())) + 1):
        tails = {p: PurePosixPath(*folders[p][-own[p] - more :], names[p].name) for p in same}
        if len({str(tail).lower() for tail in tails.values()}) == len(same):
            names.update(tails)
            return
