"""A folder of images and a folder of label maps, paired by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from mmseg.datasets import BaseSegDataset

from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.registry import DATASETS

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Images in any of the usual formats with label maps of the same name, folders included.

    ``a/photo.jpg`` below ``data_prefix.img_path`` has the label map ``a/photo.png`` below
    ``data_prefix.seg_map_path``: one channel with class numbers 0 to C-1, and 255 for pixels that
    count for nothing. Classes, and a palette if wanted, come with ``metainfo``.

    Args:
        ann_file: a text file with one image per line, its path below the image folder with '/';
            images are kept in that order. All images, ordered by name, without it.
        mask_suffix: what stands between the name of an image and the '.png' of its label map.
        kwargs: of `mmseg.BaseSegDataset`.

    Raises:
        UserError: a folder or the list is missing, a listed image is not there, two images share a
            name, or an image has no label map.
    """

    def __init__(self, mask_suffix: str = '', **kwargs) -> None:
        self.mask_suffix = mask_suffix
        super().__init__(
            **{'img_suffix': '', 'seg_map_suffix': '.png', 'reduce_zero_label': False, **kwargs}
        )

    def load_data_list(self) -> list[dict]:
        """One entry per image."""
        images = Path(self.data_prefix['img_path'])
        labels = self.data_prefix.get('seg_map_path')
        names = self._listed(images) if self.ann_file else find_images(images, self._is_mask)
        entries = []
        for name in names:
            entry = dict(
                img_path=str(images / name),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if labels:
                entry['seg_map_path'] = str(Path(labels) / mask_name(name, self.mask_suffix))
            entries.append(entry)
        lost = [e for e in entries if labels and not Path(e['seg_map_path']).is_file()]
        if lost:
            raise UserError(
                f'FolderDataset: expected a label map for each of the {len(entries)} images, found '
                f'none for {shown(e["img_path"] for e in lost)}; the first was looked for at '
                f'{lost[0]["seg_map_path"]}. Add them, or list the labelled images in ann_file.'
            )
        return entries

    def _is_mask(self, path: Path) -> bool:
        same = self.data_prefix.get('seg_map_path') == self.data_prefix['img_path']
        return bool(self.mask_suffix) and same and path.stem.endswith(self.mask_suffix)

    def _listed(self, images: Path) -> list[str]:
        try:
            lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        except OSError as error:
            raise UserError(
                f'{self.ann_file}: expected a list of images, found {error.strerror}. Correct '
                f'ann_file.'
            ) from error
        names = [line.strip() for line in lines if line.strip()]
        lost = [name for name in names if not (images / name).is_file()]
        if lost:
            raise UserError(
                f'{self.ann_file}: expected images of {images}, found no {shown(lost)}. Put them '
                f'back, or correct the list.'
            )
        return names


def find_images(folder: str | Path, skip=lambda path: False) -> list[str]:
    """Paths of the images below a folder, relative and with '/', sorted; hidden ones left out.

    Args:
        folder: where to look, its folders included.
        skip: told a relative path, whether it is something else.

    Raises:
        UserError: there is no such folder, no image in it, or two images differ in their suffix
            alone, so that they would share a label map.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f'{folder}: expected a folder of images, found '
            f'{"a file" if folder.exists() else "no such folder"}. Correct the path.'
        )
    every = [p for p in folder.rglob('*') if p.suffix.lower() in IMAGES and p.is_file()]
    every = [p for p in (p.relative_to(folder) for p in every) if not skip(p)]
    names = sorted(p.as_posix() for p in every if not any(x.startswith('.') for x in p.parts))
    if not names:
        raise UserError(
            f'{folder}: expected images ({", ".join(IMAGES)}), found none. Put them there.'
        )
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(stem(name), []).append(name)
    twice = [' and '.join(same) for same in by_stem.values() if len(same) > 1]
    if twice:
        raise UserError(
            f'{folder}: expected one image of each name, as a mask is found by it, found '
            f'{shown(twice, 3)}. Rename or remove one of each.'
        )
    return names


def stem(name: str) -> str:
    """A relative path without its suffix, folders kept."""
    return str(PurePosixPath(name).with_suffix(''))


def mask_name(name: str, mask_suffix: str = '', ending: str = '.png') -> str:
    """Where the mask of an image is below the folder of masks."""
    return f'{stem(name)}{mask_suffix}{ending}'


def shown(items: Iterable, most: int = 5) -> str:
    """The first of some items, and how many more there are."""
    items = list(items)
    more = f' and {len(items) - most} more' if len(items) > most else ''
    return ', '.join(map(str, items[:most])) + more


def write_list(names: Sequence[str], path: str | Path) -> None:
    """Write an `ann_file`."""
    with atomic_file(path) as stream:
        stream.write(''.join(f'{name}\n' for name in names).encode())
