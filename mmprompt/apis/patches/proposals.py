"""Masks that others have made, read image by image: the kinds of `tools/import_patches.py`.

A source knows nothing of a data set. An image is found by its key (its path below the folder of
images), and if no two images share it, by its file name, its name without suffix, or the number
that this is, as COCO's image ids are.
"""

import csv
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.common.files import sha256_of
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.patches import PatchSet, encode
from mmprompt.common.rle import encode_runs, runs_of_map
from mmprompt.common.safe_pickle import read_pickle
from mmprompt.datasets.coco_labels import decode
from mmprompt.datasets.yolo import read_yolo

Size = tuple[int, int]


class Named(NamedTuple):
    """An image and the names under which a source may have it, the surest first."""

    key: str
    path: Path
    names: tuple[str, ...]


def named(images: Iterable[Any]) -> list[Named]:
    """Images (with `key` and `path`) with their names; what two of them share names neither."""
    images = list(images)
    names = [_names(image.key) for image in images]
    count = Counter(name for each in names for name in set(each))
    return [
        Named(i.key, Path(i.path), tuple(n for n in dict.fromkeys(each) if count[n] == 1))
        for i, each in zip(images, names)
    ]


def _names(key: str) -> list[str]:
    path = PurePosixPath(key)
    number = [str(int(path.stem))] if path.stem.isdecimal() else []
    return [key, str(path.with_suffix('')), path.name, path.stem, *number]


class Source(ABC):
    """Masks of many images.

    Args:
        path: file or folder.
    """

    #: What it reads, for the command line.
    about = ''

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f'{path}: expected the source of patches, found nothing. Correct it.')

    @abstractmethod
    def read(self, image: Named, size: Size) -> PatchSet | None:
        """The masks of one image, None if the source does not have it.

        Args:
            image: whose.
            size: (H, W) of it.

        Raises:
            UserError: they cannot be used.
        """

    def identity(self) -> dict[str, Any]:
        """What says in the store's settings where patches are from, without the place on disk.

        Of a folder it is the name: a file of it that was mended does not begin all others anew.
        """
        digest = sha256_of(self.path) if self.path.is_file() else None
        return dict(name=self.path.name, sha256=digest)


class CocoSource(Source):
    """COCO JSON: results (a list with `image_id`), annotations, or a dict by image.

    Of a folder, one JSON per image: a list of masks or a dict with `annotations`, as SAM's own
    generator and SA-1B write them.
    """

    about = 'COCO JSON of results, annotations or masks by image; or a folder of such, by image'

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._masks: dict[str, list] | None = None
        if self.path.is_file():
            self._masks = self._by_image(_read_json(self.path))

    def _by_image(self, content: Any) -> dict[str, list]:
        rows, names = content, {}
        if isinstance(content, dict) and 'annotations' in content:
            rows = content['annotations']
            names = {i['id']: self._file_name(i) for i in content.get('images') or []}
        if isinstance(rows, list) and all(isinstance(r, dict) and 'image_id' in r for r in rows):
            found: dict[str, list] = {name: [] for name in names.values()}
            for row in rows:
                name = names.get(row['image_id'], row['image_id'])
                found.setdefault(str(name), []).append(row)
            return found
        if isinstance(content, dict) and all(isinstance(v, list) for v in content.values()):
            return content
        raise UserError(
            f'{self.path}: expected COCO results (a list of entries with image_id and '
            f'segmentation), COCO annotations, or lists of masks by image, found another JSON. '
            f'Convert it to one of these.'
        )

    def _file_name(self, image: Mapping) -> str:
        if not image.get('file_name'):
            raise UserError(
                f'{self.path}: expected a file_name for each of its images, found image '
                f'{image["id"]} without. Add it, or leave the image out.'
            )
        return image['file_name']

    def read(self, image: Named, size: Size) -> PatchSet | None:
        if self._masks is not None:
            name = next((n for n in image.names if n in self._masks), None)
            return None if name is None else self._patches(self._masks[name], size, self.path, name)
        path = _beside(self.path, image, '.json')
        if path is None:
            return None
        content = _read_json(path)
        rows = content.get('annotations') if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise UserError(f'{path}: expected a list of masks, found another JSON. Correct it.')
        return self._patches(rows, size, path, image.key)

    @staticmethod
    def _patches(rows: Sequence[Any], size: Size, path: Path, name: str) -> PatchSet:
        where = f'{path}, image {name}'
        rles, scores = [], []
        for row in rows:
            mask = row.get('segmentation', row) if isinstance(row, dict) else row
            rles.append(_as_rle(mask, size, where))
            score = row.get('score', row.get('predicted_iou')) if isinstance(row, dict) else None
            scores.append(1 if score is None else score)
        return _patch_set(rles, size, scores, where)


def _as_rle(mask: Any, size: Size, where: str) -> Any:
    """Compressed run lengths as they are; polygons and plain run lengths compressed."""
    if isinstance(mask, dict) and isinstance(mask.get('counts'), (str, bytes)):
        return mask
    return encode(decode(mask, size, where)[None])[0]


def _patch_set(rles: list, size: Size, scores: Sequence[Any], where: str) -> PatchSet:
    try:
        values = np.asarray(scores, np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f'the score {scores[int(np.argmin(np.isfinite(values)))]}')
        return PatchSet.from_rles(rles, size, values)
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{where}: expected masks of the image with its {size[0]}x{size[1]} pixels (height x '
            f'width) and a score each, found: {error}. Correct it, or make it of these images.'
        ) from error


class PickleSource(Source):
    """Folder of the released research code: one pickle per image, named by its id."""

    about = 'folder of the pickles of the released research code (plain data is read, nothing run)'

    def read(self, image: Named, size: Size) -> PatchSet | None:
        path = _beside(self.path, image, '.pkl')
        if path is None:
            return None
        content = read_pickle(path)
        keys = ('segmentations', 'scores')
        if not isinstance(content, dict) or any(key not in content for key in keys):
            found = sorted(map(str, content)) if isinstance(content, dict) else type(content)
            raise UserError(
                f'{path}: expected a dict with segmentations and scores, found {found}. Give the '
                f'folder of proposals, not that of overlaps.'
            )
        # Boxes are stored as xywh; they are made anew of the masks.
        rles = list(content['segmentations'])
        return _patch_set(rles, size, np.asarray(content['scores']).reshape(-1), str(path))


class YoloSource(Source):
    """Folder of YOLO segment labels, arranged as the images are."""

    about = 'folder of YOLO segment labels, arranged like the images'

    def read(self, image: Named, size: Size) -> PatchSet | None:
        folder = image.path
        for _ in PurePosixPath(image.key).parts:
            folder = folder.parent
        if not (self.path / image.key).with_suffix('.txt').is_file():
            return None
        label = read_yolo(folder, self.path, image.key, 2**31)
        where = f'{self.path}, image {image.key}'
        rles = [_as_rle([points.ravel().tolist()], size, where) for points in label.polygons]
        return PatchSet.from_rles(rles, size)


class MaskSource(Source):
    """Folder of masks: one map per image, or a folder per image with one binary mask per file.

    In a map (PNG of numbers or colours, or .npy of shape (H, W)) every value but 0 and black is a
    patch; a .npy of shape (N, H, W) holds N masks. In a folder of an image every PNG is a mask,
    whatever is not 0 in it; a `metadata.csv` with `id` and `predicted_iou` beside them, as SAM's
    own generator writes it, gives scores.
    """

    about = 'folder of masks: a label map per image, or a folder of binary masks per image'
    suffixes = ('.png', '.npy', '.tif', '.tiff', '.bmp')

    def read(self, image: Named, size: Size) -> PatchSet | None:
        for name in image.names:
            folder = self.path / name
            if folder.is_dir():
                return self._of_folder(folder, size)
        for suffix in self.suffixes:
            path = _beside(self.path, image, suffix)
            if path is not None:
                return self._of_map(path, size)
        return None

    def _of_folder(self, folder: Path, size: Size) -> PatchSet:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in self.suffixes)
        files.sort(key=lambda p: (len(p.stem), p.stem) if p.stem.isdecimal() else (0, ''))
        scores = _sam_scores(folder / 'metadata.csv')
        masks = (self._sized(_numbers(path), path, size) != 0 for path in files)
        return PatchSet.from_rles(encode(masks), size, [scores.get(p.stem, 1.0) for p in files])

    def _of_map(self, path: Path, size: Size) -> PatchSet:
        values = _numbers(path)
        if values.ndim == 3:
            return PatchSet.from_rles(encode(self._sized(v, path, size) for v in values), size)
        values = self._sized(values, path, size)
        runs, kinds = runs_of_map(values)
        found = [rle for rle, kind in zip(encode_runs(runs), kinds.tolist()) if kind != 0]
        return PatchSet.from_rles(found, size)

    @staticmethod
    def _sized(values: np.ndarray, path: Path, size: Size) -> np.ndarray:
        if values.shape != size:
            raise UserError(
                f'{path}: expected a mask of the image with its {size[0]}x{size[1]} pixels (height '
                f'x width), found {"x".join(map(str, values.shape))}. Make it of this image.'
            )
        return values


class StoreSource(Source):
    """Another patch store: a file or a pattern of shards."""

    about = 'another patch store, a file or a pattern of its shards'

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = PatchStore(path)

    def read(self, image: Named, size: Size) -> PatchSet | None:
        if image.key not in self.store:
            return None
        patches = self.store.get(image.key)
        if patches.size != size:
            raise UserError(
                f'{self.path}: expected patches of {image.key} of {size[0]}x{size[1]} pixels '
                f'(height x width), found {patches.size[0]}x{patches.size[1]}. They are those of '
                f'another data set.'
            )
        digest = self.store.digest(image.key)
        if digest is not None and digest != image_digest(image.path):
            raise UserError(
                f'{image.path}: expected the image that the patches in {self.path} under '
                f'{image.key} were made of, found another file. Give the store of this split, or '
                f'make it anew if the images were.'
            )
        return patches

    def identity(self) -> dict[str, Any]:
        meta = self.store.meta
        return dict(generator=meta['generator'], settings_hash=meta['settings_hash'])


SOURCES: dict[str, Callable[[str], Source]] = dict(
    coco=CocoSource,
    pickles=PickleSource,
    yolo=YoloSource,
    masks=MaskSource,
    patches=StoreSource,
)


def _beside(folder: Path, image: Named, suffix: str) -> Path | None:
    """The file of an image in a folder, by the first of its names that is there."""
    paths = (folder / f'{name}{suffix}' for name in image.names)
    return next((path for path in paths if path.is_file()), None)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path}: expected JSON, found what cannot be read ({error}). Copy it again.'
        ) from error


def _numbers(path: Path) -> np.ndarray:
    """A map (H, W) of numbers, colours as 0xRRGGBB; of .npy any shape."""
    try:
        if path.suffix.lower() == '.npy':
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                if image.mode == 'LA':
                    image = image.getchannel(0)
                values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f'{path}: expected a mask, found what cannot be read ({error}). Copy it again.'
        ) from error
    is_colour = values.ndim == 3 and path.suffix.lower() != '.npy'
    return values[..., :3].astype(np.int64) @ [65536, 256, 1] if is_colour else values


def _sam_scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    with path.open(newline='', encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream))
    try:
        return {row['id']: float(row['predicted_iou']) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path}: expected the columns id and predicted_iou with numbers, found another table '
            f'({error}). Correct or remove it.'
        ) from error
