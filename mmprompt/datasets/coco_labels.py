"""COCO annotations, of instances or panoptic -> label maps of class numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_panoptic import rgb_to_ids
from mmprompt.datasets.folder import shown
from mmprompt.datasets.masks import IGNORED, read_mask


class CocoLabels:
    """Label maps from one COCO JSON.

    Of instances, polygons and run lengths are drawn from the largest to the smallest, so that of
    overlapping ones the smaller is seen; crowds are drawn as well. Of panoptic annotations the PNGs
    are read and void is ignored.

    Args:
        path: the JSON.
        classes: C lists of words, the first being the class's name.
        ids: category id of each class; None finds categories by the classes' words.
        rest: what is not listed: a class or `IGNORED`; None is an error where it occurs.
        pngs: folder of panoptic PNGs.

    Attributes:
        panoptic: whether the annotations are.

    Raises:
        UserError: the JSON is missing, damaged or something else, a class has no category, or a
            category has no class and `rest` does not say what it is.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[Sequence[str]],
        ids: Sequence[int] | None = None,
        rest: int | None = None,
        pngs: str | Path | None = None,
    ) -> None:
        self.path, self.rest = Path(path), rest
        content = read_coco(self.path)
        self.panoptic = any('segments_info' in a for a in content['annotations'])
        self.pngs = Path(pngs) if pngs is not None else None
        self._check_kind()
        self._class_of = self._match(content['categories'], classes, ids)
        self._images = {image['file_name']: image for image in content['images']}
        self._by_name: dict[str, list[str]] = {}
        for name in self._images:
            self._by_name.setdefault(PurePosixPath(name).name, []).append(name)
        self._annotations: dict = {}
        for annotation in content['annotations']:
            self._annotations.setdefault(annotation['image_id'], []).append(annotation)

    def _check_kind(self) -> None:
        if self.panoptic and (self.pngs is None or not self.pngs.is_dir()):
            raise UserError(
                f'{self.path}: expected the folder of the PNGs beside panoptic annotations, found '
                f'{self.pngs or "none given"}. Give it with --masks.'
            )
        if not self.panoptic and self.rest is None:
            raise UserError(
                f'{self.path}: expected a word about pixels in no instance, found none. Give '
                f'--rest ignore if they may be anything, or --rest NAME if they are the class NAME '
                f'of the list.'
            )

    def _match(self, categories: list[dict], classes: Sequence, ids: Sequence | None) -> dict:
        """Category id -> class."""
        if ids is not None:
            known, wanted = {c['id'] for c in categories}, dict(zip(ids, range(len(ids))))
            found = {i: n for i, n in wanted.items() if i in known}
            lost = [f'{i} ({classes[n][0]})' for i, n in wanted.items() if i not in known]
        else:
            index = {word: n for n, words in enumerate(classes) for word in words}
            found = {c['id']: index[c['name']] for c in categories if c['name'] in index}
            lost = [words[0] for n, words in enumerate(classes) if n not in found.values()]
        # A class that is the rest of every image needs no category.
        if self.rest is not None and self.rest != IGNORED:
            lost = [x for x in lost if x != classes[self.rest][0]]
        strange = [c['name'] for c in categories if c['id'] not in found]
        if lost:
            raise UserError(
                f'{self.path}: expected a category for every class, found none for {shown(lost)}; '
                f'categories without a class are {shown(strange, 20) or "none"}. Correct '
                f'the list of classes, or write the category id before a name, as in "7: road".'
            )
        if strange and self.rest is None:
            raise UserError(
                f'{self.path}: expected a class for every category, found none for '
                f'{shown(strange, 20)}. List them, or say what they are with --rest.'
            )
        return found

    def entry(self, name: str) -> str | None:
        """The file name in the JSON that means an image: the same path, or the same last part.

        Raises:
            UserError: several entries have that last part.
        """
        if name in self._images:
            return name
        same = self._by_name.get(PurePosixPath(name).name, [])
        if len(same) > 1:
            raise UserError(
                f'{self.path}: expected one entry for the image {name}, found {shown(same)}. '
                f'Give as --images the folder that file_name starts from.'
            )
        return same[0] if same else None

    def label(self, name: str) -> tuple[np.ndarray, list[Path]]:
        """(H, W) uint8 class numbers of an image, and the files besides the JSON that say so.

        Raises:
            UserError: its annotations cannot be used.
        """
        image = self._images[self.entry(name)]
        annotations = self._annotations.get(image['id'], [])
        if self.panoptic:
            return self._panoptic(name, annotations)
        size = (image.get('height'), image.get('width'))
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise UserError(
                f'{self.path}: expected height and width of the image {name}, found {size}. Add '
                f'them.'
            )
        return self._instances(size, annotations, name), []

    def _instances(self, size: tuple, annotations: list[dict], name: str) -> np.ndarray:
        label = np.full(size, self.rest, np.uint8)
        drawn = []
        for annotation in annotations:
            mask = decode(annotation.get('segmentation'), size, f'{self.path}, image {name}')
            drawn.append((int(mask.sum()), self._class_of.get(annotation['category_id']), mask))
        for _, number, mask in sorted(drawn, key=lambda entry: -entry[0]):
            label[mask] = self.rest if number is None else number
        return label

    def _panoptic(self, name: str, annotations: list[dict]) -> tuple[np.ndarray, list[Path]]:
        if len(annotations) != 1 or 'file_name' not in annotations[0]:
            raise UserError(
                f'{self.path}: expected one panoptic annotation of the image {name}, found '
                f'{len(annotations)}. Correct the JSON.'
            )
        path = self.pngs / annotations[0]['file_name']
        colours = read_mask(path).colours
        if colours is None:
            raise UserError(
                f'{path}: expected a panoptic PNG whose colours are ids, found numbers. Give the '
                f'PNGs of the panoptic JSON with --masks.'
            )
        rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)  # (H, W, 3)
        ids = rgb_to_ids(rgb)
        rest = IGNORED if self.rest is None else self.rest
        table = {s['id']: s['category_id'] for s in annotations[0]['segments_info']}
        found, place = np.unique(ids, return_inverse=True)
        strange = [int(i) for i in found if i and int(i) not in table]
        if strange:
            raise UserError(
                f'{path}: expected ids that segments_info of {self.path} lists, found '
                f'{shown(strange)}. PNG and JSON belong to different versions: export both again.'
            )
        row = [self._class_of.get(table[int(i)], rest) if i else IGNORED for i in found]
        return np.array(row, np.uint8)[place.reshape(ids.shape)], [path]


def decode(segmentation: object, size: tuple[int, int], where: str) -> np.ndarray:
    """Mask (H, W) bool of polygons or of run lengths, compressed or not.

    Raises:
        UserError: it is neither, or of another size.
    """
    counts = compress(segmentation, size, where)
    from pycocotools import mask as coco

    return coco.decode(dict(size=list(size), counts=counts)).astype(bool)


def compress(segmentation: object, size: tuple[int, int], where: str) -> bytes:
    """Compressed counts of polygons or of run lengths, compressed or not.

    Raises:
        UserError: it is neither, or of another size.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise UserError(
            'COCO instances: expected the package pycocotools, found none. Install it: pip install '
            'pycocotools'
        ) from error
    height, width = size
    try:
        if isinstance(segmentation, Mapping):
            if list(segmentation['size']) != [height, width]:
                raise ValueError(f'size {segmentation["size"]} in place of {[height, width]}')
            counts = segmentation['counts']
            if isinstance(counts, list):
                counts = coco.frPyObjects(dict(segmentation), height, width)['counts']
            coco.area(dict(size=[height, width], counts=counts))
            return counts.encode() if isinstance(counts, str) else counts
        polygons = [np.asarray(p, float).ravel().tolist() for p in segmentation]
        if not polygons or any(len(p) < 6 or len(p) % 2 for p in polygons):
            raise ValueError('a polygon of fewer than three points')
        return coco.merge(coco.frPyObjects(polygons, height, width))['counts']
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{where}: expected a segmentation of polygons or run lengths, found something else '
            f'({error}). Correct or remove the annotation.'
        ) from error


def read_coco(path: Path) -> dict:
    """A COCO JSON, checked for what every kind of it has.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(f'{path}: expected a COCO JSON, found no such file.') from error
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path}: expected a COCO JSON, found what cannot be read ({error}). Export it again.'
        ) from error
    keys = dict(images=('id', 'file_name'), annotations=('image_id',), categories=('id', 'name'))
    for part, names in keys.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list) or any(name not in row for row in rows for name in names):
            raise UserError(
                f'{path}: expected COCO format, where {part!r} is a list of entries with '
                f'{" and ".join(names)}, found another. Export instances or panoptic annotations '
                f'as COCO JSON.'
            )
    return content
