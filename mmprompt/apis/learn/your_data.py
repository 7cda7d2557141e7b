"""A user's images and masks: everything checked, then label maps and a split that training reads.

Nothing of the user's folders is changed. What is made lies in one folder:

    labels/…png       class numbers, 255 = ignored, upright like the image as it is viewed
    splits/*.txt      the images of each part
    manifest.json     settings, seeds, parts, classes per part, and hashes of the files
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmprompt.apis.learn.classes_file import Classes, parse_colour, read_classes
from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_labels import CocoLabels
from mmprompt.datasets.folder import IMAGES, find_images, mask_name, shown, stem
from mmprompt.datasets.masks import IGNORED, MaskReader

ENDINGS = ('.png', '.tif', '.tiff', '.bmp', '.gif', '.jpg', '.jpeg', '.webp')
_ORIENTATION = 274  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Labeller = Callable[[str], tuple[np.ndarray, list[Path]]]


@dataclass(frozen=True)
class Sources:
    """Where data are and how masks are meant; see the command line of the same names."""

    images: Path
    classes: Path
    masks: Path | None = None
    coco: Path | None = None
    mask_suffix: str = ''
    ignore: tuple[str, ...] | None = None
    rest: str | None = None
    palette: str | None = None
    masks_drawn: str | None = None
    skip_unlabelled: bool = False


@dataclass
class Data:
    """What was found.

    Attributes:
        classes: of the list.
        names: images, paths below the image folder.
        presence: (N, C) bool.
        sizes: (N, 2) width and height as viewed.
        hashes: of image and label files by image.
        notes: what the user should know, one line each.
    """

    classes: Classes
    names: list[str]
    presence: np.ndarray
    sizes: np.ndarray
    hashes: dict[str, str]
    notes: list[str]


def read_data(sources: Sources, labels: Path | None) -> Data:
    """Check images and masks, and write label maps.

    Args:
        sources: what the user gave.
        labels: folder to write label maps to; it appears when all is right. None only checks.

    Raises:
        UserError: the first thing that is wrong, and how many files are.
    """
    classes = read_classes(sources.classes)
    notes: list[str] = []
    reader = _reader(sources, classes) if sources.coco is None else None
    if reader is None:
        coco = _coco(sources, classes)
        names, label = _images(sources), coco.label
        known = {name for name in names if coco.entry(name) is not None}
    else:
        names, masks = _images(sources), find_masks(sources)
        known = {name for name in names if stem(name) in masks}
        strays = sorted(set(masks) - {stem(name) for name in names})
        if strays:
            notes.append(f'{len(strays)} masks belong to no image: {shown(strays)}')

        def label(name: str) -> tuple[np.ndarray, list[Path]]:
            path = masks[stem(name)]
            return reader.label(path), [path]

    names = _labelled(names, known, sources, notes)
    part = None if labels is None else labels.with_name(f'.{labels.name}.part')
    try:
        data = _convert(sources, classes, names, label, part)
        if reader is not None:
            _check_values(reader, sources, classes)
        if part is not None:
            shutil.rmtree(labels, ignore_errors=True)
            part.rename(labels)
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    absent = [n for n, some in zip(classes.names, data.presence.any(0)) if not some]
    if absent:
        notes.append(f'no image shows {shown(absent, 20)}: nothing can be learned or measured')
    data.notes = notes + data.notes
    return data


# ------------------------------------------------------------------- finding
def _images(sources: Sources) -> list[str]:
    """Names of the images; masks in the same folder, or in a folder of it, are none."""
    masks, images = sources.masks, sources.images
    if masks is None:
        return find_images(images)
    if masks.resolve() == images.resolve():
        if not sources.mask_suffix:
            raise UserError(
                f'{masks}: expected masks in a folder of their own, or names that tell them from '
                f'images, found the folder of --images. Give --mask-suffix (such as _mask for '
                f'photo_mask.png), or move them.'
            )
        return find_images(images, lambda path: path.stem.endswith(sources.mask_suffix))
    inside = masks.resolve().is_relative_to(images.resolve()) and masks.is_dir()
    below = masks.resolve().relative_to(images.resolve()) if inside else None
    return find_images(images, lambda path: inside and path.is_relative_to(below))


def find_masks(sources: Sources) -> dict[str, Path]:
    """Mask file by the stem of its image.

    Raises:
        UserError: there is no such folder, or two files are masks of one image.
    """
    folder, suffix = sources.masks, sources.mask_suffix
    if folder is None or not folder.is_dir():
        raise UserError(
            f'--masks {folder}: expected a folder of PNG masks, found '
            f'{"none" if folder is None else "no such folder"}. Correct it, or give --coco.'
        )
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob('*') if p.suffix.lower() in ENDINGS):
        name = path.relative_to(folder)
        if any(part.startswith('.') for part in name.parts) or not path.stem.endswith(suffix):
            continue
        key = stem(name.as_posix()).removesuffix(suffix)
        if key in found:
            raise UserError(
                f'{folder}: expected one mask for each image, found {found[key].name} and '
                f'{path.name}. Remove one.'
            )
        found[key] = path
    return found


def _labelled(names: list[str], known: set[str], sources: Sources, notes: list[str]) -> list[str]:
    missing = [stem(name) for name in names if name not in known]
    where = sources.coco or f'{sources.masks} (NAME{sources.mask_suffix}.png)'
    if missing and not (sources.skip_unlabelled and known):
        raise UserError(
            f'{where}: expected a mask for each of the {len(names)} images of {sources.images}, '
            f'found none for {len(missing)}: {shown(missing, 10)}. Add them, or leave these images '
            f'out with --skip-unlabelled.'
        )
    if missing:
        notes.append(f'{len(missing)} images without a mask are left out: {shown(missing)}')
    return [name for name in names if name in known]


# -------------------------------------------------------------------- reading
def _rest(sources: Sources, classes: Classes) -> int | None:
    if sources.rest in (None, 'ignore'):
        return None if sources.rest is None else IGNORED
    if sources.rest in classes.names:
        return classes.names.index(sources.rest)
    raise UserError(
        f"--rest: expected 'ignore' or a class of {sources.classes}, found {sources.rest!r}. "
        f'Correct it, or add the class.'
    )


def _coco(sources: Sources, classes: Classes) -> CocoLabels:
    rest = _rest(sources, classes)
    return CocoLabels(sources.coco, classes.words, classes.ids, rest, sources.masks)


def _reader(sources: Sources, classes: Classes) -> MaskReader:
    """Raises `UserError` if something is both a class and ignored, or no value or colour."""
    values = classes.values
    colours = {_packed(c): n for n, c in enumerate(classes.colours or ())}
    ignored, ignored_colours = set(), set()
    given = sources.ignore if sources.ignore is not None else ('255',) * (IGNORED not in values)
    for item in given:
        colour = parse_colour(item)
        if colour is None and not item.strip().isdecimal():
            raise UserError(
                f'--ignore: expected values or colours, such as 255,0 or #000000, found {item!r}.'
            )
        number = int(item) if colour is None else colour
        taken = (values if colour is None else colours).get(number)
        # Colours decide where the classes have some; the order of lines then says nothing.
        if taken is not None and (colour is not None or classes.colours is None):
            raise UserError(
                f'--ignore {item}: expected a value that is no class, found that of '
                f'{classes.names[taken]!r} in {sources.classes}. Write the numbers that masks '
                f'hold before the names, as in "7: road", or correct --ignore.'
            )
        (ignored if colour is None else ignored_colours).add(number)
    rest = _rest(sources, classes)
    return MaskReader(values, colours, ignored, ignored_colours, rest, sources.palette)


def _packed(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _check_values(reader: MaskReader, sources: Sources, classes: Classes) -> None:
    """Refuse values that are no class, and 0 and 255 alone, of which 255 may mean a class."""
    if reader.strange.pixels:
        numbers = [v for v in reader.strange.pixels if isinstance(v, int)]
        hint = ''
        if numbers == [len(classes.names)] and 0 not in reader.seen:
            hint = ' If masks count from 1, write 1: before the first name, 2: before the second.'
        kind = 'values' if numbers else 'colours'
        raise UserError(
            f'{sources.masks}: expected masks of the {len(classes.names)} classes of '
            f'{sources.classes}, found other {kind}: {reader.strange}. Give them to classes, or '
            f'leave them out with --ignore VALUE or --rest ignore.{hint}'
        )
    open_end = sources.ignore is None and classes.ids is None and sources.rest is None
    if open_end and reader.seen == {0, 255}:
        raise UserError(
            f'{sources.masks}: expected masks whose 255 is known to be a class or to be ignored, '
            f'found 0 and 255 alone. Write 0: and 255: before the names in {sources.classes}, or '
            f'give --ignore 255.'
        )


# ------------------------------------------------------------------ converting
def _convert(
    sources: Sources, classes: Classes, names: list[str], label: Labeller, part: Path | None
) -> Data:
    """Read every image and its mask; all files are looked at before anything is raised."""
    wrong: list[tuple[str, UserError]] = []
    presence = np.zeros((len(names), len(classes.names)), bool)
    sizes, hashes, turned = np.zeros((len(names), 2), int), {}, 0
    for i, name in enumerate(names):
        try:
            stored, orientation = _look(sources.images / name)
            mask, files = label(name)
            upright = _upright(mask, stored, orientation, sources, name, files)
            turned += upright is not mask
        except UserError as error:
            wrong.append((name, error))
            continue
        values = np.unique(upright)
        presence[i, values[values != IGNORED]] = True
        sizes[i] = upright.shape[1], upright.shape[0]
        hashes[name] = _hash(sources.images / name, upright)
        if part is not None:
            path = part / mask_name(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(upright).save(path)
    if wrong:
        more = [name for name, _ in wrong[1:]]
        also = f' ({len(more)} more have errors: {shown(more)})' if more else ''
        raise UserError(f'{wrong[0][1]}{also}')
    notes = [f'{turned} masks of images as stored were turned by EXIF'] if turned else []
    return Data(classes, names, presence, sizes, hashes, notes)


def _look(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height as stored, and EXIF orientation, of an image that can be decoded."""
    try:
        with Image.open(path) as file:
            orientation, kind = file.getexif().get(_ORIENTATION, 1), file.format
            file.load()
            size = file.size
    except Exception as error:
        raise UserError(
            f'{path}: expected an image ({", ".join(IMAGES)}) that can be decoded, found a damaged '
            f'file ({error}). Copy it again, or remove it.'
        ) from error
    if orientation not in _TURNS:
        return size, 1
    if kind not in ('JPEG', 'MPO'):
        raise UserError(
            f'{path}: expected EXIF orientation in JPEGs alone, found {orientation} in a {kind}, '
            f'which not every program turns. Save the image upright.'
        )
    return size, orientation


def _upright(
    mask: np.ndarray,
    stored: tuple[int, int],
    orientation: int,
    sources: Sources,
    name: str,
    files: list[Path],
) -> np.ndarray:
    """The mask as the image is viewed, which is how training and prediction load it."""
    viewed = stored[::-1] if orientation >= 5 else stored
    size, drawn = mask.shape[::-1], sources.masks_drawn
    if orientation != 1 and drawn is None:
        if viewed == stored and size == stored:
            raise UserError(
                f'{sources.images / name}: expected an upright image, found EXIF orientation '
                f'{orientation} and a mask whose size does not tell whether it was drawn on the '
                f'image as viewed or as stored. Say so: --masks-drawn viewed or stored.'
            )
        drawn = 'stored' if size == stored else 'viewed'
    wanted = stored if drawn == 'stored' else viewed
    if size != wanted:
        exif = f' (EXIF orientation {orientation})' if orientation != 1 else ''
        where = files[0] if files else f'{sources.coco}, image {name}'
        raise UserError(
            f'{where}: expected {wanted[0]}x{wanted[1]} pixels like the image '
            f'{sources.images / name}{exif}, found {size[0]}x{size[1]}. Export the mask at the '
            f'size of the image.'
        )
    if orientation == 1 or drawn == 'viewed':
        return mask
    return np.asarray(Image.fromarray(mask).transpose(_TURNS[orientation]))


def _hash(image: Path, label: np.ndarray) -> str:
    digest = hashlib.sha256(image.read_bytes())
    digest.update(f'{label.shape}'.encode() + np.ascontiguousarray(label).tobytes())
    return digest.hexdigest()
