"""What can be wrong with a dataset, said before it is used or when it shows."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.registry import DATASETS as ROOT_DATASETS
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.patch_geometry import check_pipeline

_TAIL = 65536
_EXIF_ORIENTATION = 274


def build_dataset(cfg: Any) -> Any:
    """Build a dataset from its config; a built one passes through. Then `check_dataset`.

    Raises:
        UserError: for a missing folder or list, an empty split, an image without a label.
    """
    if not isinstance(cfg, dict):
        check_dataset(cfg)
        return cfg
    for part in _leaf_configs(cfg):
        _check_folders(part)
    try:
        dataset = ROOT_DATASETS.build(cfg)
    except UserError:
        raise
    except Exception:
        for part in _leaf_configs(cfg):
            _check_not_empty(part)
        raise
    check_dataset(dataset)
    return dataset


def check_dataset(dataset: Any) -> None:
    """Check that a built dataset has images, that each has its label, and that patches can follow.

    Raises:
        UserError: for an empty split, an image without a label, or a pipeline in which patches
            would stay behind the image.
    """
    for leaf in _leaves(dataset):
        if hasattr(leaf, 'full_init'):
            leaf.full_init()
        if len(leaf) == 0:
            raise _empty(leaf)
        check_pipeline(getattr(leaf, 'pipeline', None))
        if not hasattr(leaf, 'get_data_info'):
            continue
        infos = (leaf.get_data_info(i) for i in range(len(leaf)))
        pairs = ((i.get('img_path'), i.get('seg_map_path')) for i in infos)
        bare = [(a, b) for a, b in pairs if b and _is_local(b) and not os.path.exists(b)]
        if bare:
            more = f' ({len(bare)} of {len(leaf)} images lack theirs)' if len(bare) > 1 else ''
            raise UserError(
                f'{bare[0][0]}: expected its label at {bare[0][1]}, found no such file{more}. Add '
                f'the label, remove the image, or correct data_prefix.seg_map_path and '
                f'seg_map_suffix in the config.'
            )


def check_files(info: dict) -> None:
    """Check that the image and the label of one sample are whole; a look at each file's end.

    Raises:
        UserError: naming a truncated PNG or JPEG.
    """
    for key in ('img_path', 'seg_map_path'):
        path = info.get(key)
        if path and _is_local(path) and os.path.isfile(path) and not _has_end(path):
            raise UserError(
                f'{path}: expected a whole {_kind(path)} file, found one that is cut after '
                f'{os.path.getsize(path)} bytes. Copy it again, or remove it from the dataset.'
            )


def explain_failure(info: dict) -> UserError | None:
    """Say what is wrong with the files of a sample that failed; None if nothing is."""
    for key in ('img_path', 'seg_map_path'):
        path = info.get(key)
        if not path or not _is_local(path):
            continue
        if not os.path.isfile(path):
            return UserError(
                f'{path}: expected a file, found none. Restore it, or remove it from the dataset.'
            )
        try:
            with Image.open(path) as image:
                image.load()
                size, mode = image.size, image.mode
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        except Exception as reason:
            return UserError(
                f'{path}: expected an image that can be decoded, found a damaged file ({reason}). '
                f'Copy it again, or remove it from the dataset.'
            )
        if key == 'img_path':
            # Loading turns an image by its EXIF orientation; from 5 on, the sides change places.
            stored, turned = size, orientation
            wanted = size[::-1] if orientation >= 5 else size
        elif size != wanted and size == stored:
            return UserError(
                f'{info["img_path"]}: expected an image that is upright as stored, like its label '
                f'{path}, found EXIF orientation {turned}, by which it is turned when it '
                f"is loaded. Load it with dict(type='LoadImageFromFile', "
                f"color_type='color_ignore_orientation') in the pipeline, or remove the tag."
            )
        elif size != wanted:
            return UserError(
                f'{path}: expected a label of {wanted[0]}x{wanted[1]} pixels like its image, found '
                f'{size[0]}x{size[1]}. Make the label at the size of the image.'
            )
        elif 'segments_info' not in info and mode not in ('L', 'P', 'I', '1', 'I;16'):
            return _colour(path, len(mode))
    return None


def check_labels(label: np.ndarray, info: dict, num_classes: int, ignore_index: int) -> None:
    """Check the values of a loaded label map.

    Args:
        label: (1, H, W) or (H, W) class numbers.
        info: of the sample; names its files.
        num_classes: values 0 … num_classes - 1 are classes.
        ignore_index: the value that stands for none.

    Raises:
        UserError: naming the file and the values outside.
    """
    path = info.get('seg_map_path', info.get('img_path', 'label'))
    if label.ndim == 3 and label.shape[0] != 1:
        raise _colour(path, min(label.shape))
    outside = ((label < 0) | (label >= num_classes)) & (label != ignore_index)
    if outside.any():
        values, counts = np.unique(label[outside], return_counts=True)
        shown = ', '.join(f'{v} ({n} pixels)' for v, n in list(zip(values, counts))[:5])
        raise UserError(
            f'{path}: expected label values 0 to {num_classes - 1}, or {ignore_index} for pixels '
            f'to ignore, found {shown}. Correct the label file, or classes, reduce_zero_label or '
            f'ignore_index of the dataset in the config.'
        )


def _check_folders(cfg: dict) -> None:
    root = cfg.get('data_root') or ''
    prefixes = {k: v for k, v in (cfg.get('data_prefix') or {}).items() if isinstance(v, str)}
    wanted = [('data_root', root)] if root else []
    wanted += [(f'data_prefix.{k}', os.path.join(root, v)) for k, v in prefixes.items()]
    for key, path in wanted:
        if path and _is_local(path) and not os.path.isdir(path):
            raise UserError(
                f'{path}: expected the folder that {key} of the dataset names, found none. Put the '
                f'data there, or correct {key} in the config (or with --cfg-options).'
            )
    listing = cfg.get('ann_file')
    path = os.path.join(root, listing) if isinstance(listing, str) and listing else ''
    if path and _is_local(path) and not os.path.exists(path):
        raise UserError(
            f'{path}: expected the list of images that ann_file of the dataset names, found none. '
            f'Correct ann_file in the config, or leave it out to take every image of the folder.'
        )


def _check_not_empty(cfg: dict) -> None:
    """An empty list makes mmengine's serialisation fail before anyone can count."""
    try:
        lazy = ROOT_DATASETS.build({**cfg, 'lazy_init': True})
        empty = not lazy.load_data_list()
    except Exception:
        return
    if empty:
        raise _empty(lazy)


def _empty(dataset: Any) -> UserError:
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path') or '.'
    suffix = getattr(dataset, 'img_suffix', '')
    others = sum(len(files) for _, _, files in os.walk(folder))
    listing = getattr(dataset, 'ann_file', '')
    listed = f' listed in {listing}' if listing and os.path.isfile(listing) else ''
    return UserError(
        f'{folder}: expected images whose names end in {suffix!r}{listed}, found none among '
        f'{others} files. Put the images there, or correct data_prefix.img_path and img_suffix of '
        f'the dataset in the config.'
    )


def _colour(path: str, channels: int) -> UserError:
    return UserError(
        f'{path}: expected a label map with one channel of class numbers, found {channels} '
        f'channels (a colour picture). Convert the colours to class numbers first.'
    )


def _leaf_configs(cfg: Any) -> Iterator[dict]:
    inner = [cfg.get('dataset')] if isinstance(cfg.get('dataset'), dict) else []
    inner += [c for c in cfg.get('datasets') or [] if isinstance(c, dict)]
    if not inner:
        yield cfg
    for part in inner:
        yield from _leaf_configs(part)


def _leaves(dataset: Any) -> Iterator[Any]:
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    for part in inner:
        if part is not None:
            yield from _leaves(part)


def _is_local(path: str) -> bool:
    return '://' not in str(path)


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lstrip('.').upper()


def _has_end(path: str) -> bool:
    """Look for the mark that ends a PNG or a JPEG; other formats have no such mark."""
    with open(path, 'rb') as stream:
        start = stream.read(4)
        stream.seek(max(0, os.path.getsize(path) - _TAIL))
        tail = stream.read()
    if start == b'\x89PNG':
        return b'IEND' in tail
    if start[:2] == b'\xff\xd8':
        return b'\xff\xd9' in tail
    return True
