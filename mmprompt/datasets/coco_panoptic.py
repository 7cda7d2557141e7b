"""Panoptic annotations in COCO's format: one JSON, and a PNG per image whose colours are ids.

The format: https://cocodataset.org/#format-data, "Panoptic Segmentation". A pixel's id is
R + 256 G + 65536 B; ``segments_info`` of the image gives each id its category and says whether it
is a crowd; 0 is void. Neither panopticapi nor MMDetection is needed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets.transforms import ID_DIVISOR
from mmprompt.registry import DATASETS, TRANSFORMS

VOID_LABEL = 255


def rgb_to_ids(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 colours -> (H, W) int32 ids."""
    red, green, blue = (image[..., i].astype(np.int32) for i in range(3))
    return red + 256 * green + 65536 * blue


@DATASETS.register_module()
class CocoPanopticSegDataset(BaseSegDataset):
    """Images with a COCO panoptic JSON, for semantic, instance and panoptic segmentation.

    Classes are the categories in the order of the JSON. Load the annotations with
    `LoadAnnotationsFromCocoPanoptic` and pack them with `PackPanopticInputs`, which learns from the
    data set what is a thing. ``metainfo['thing_classes']`` are the names of things, as in
    MMDetection.

    Args:
        ann_file: the JSON, below `data_root` unless absolute.
        data_prefix: ``img_path``, the folder of images, and ``seg_map_path``, that of the PNGs.
        img_name: where an image is in its folder, made of ``{file_name}`` and ``{id}`` of its entry
            in the JSON and of ``{folder}``, what stands before the first '_' of the file name. For
            the panoptic JSON of Cityscapes: ``'{folder}/{id}_leftImg8bit.png'``.
        metainfo: ``classes`` chooses categories by name, and their order; all others are void.
        kwargs: of `mmseg.BaseSegDataset`.

    Raises:
        UserError: the JSON is missing, damaged or of another format, a chosen class is not in it,
            or an image has no entry.
    """

    def __init__(
        self,
        ann_file: str,
        data_prefix: Mapping[str, str],
        img_name: str = '{file_name}',
        data_root: str | None = None,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs,
    ) -> None:
        self.img_name = img_name
        path = Path(data_root or '') / ann_file
        self._json = _read(path)
        meta, chosen = dict(metainfo or {}), (metainfo or {}).get('classes')
        self._categories = _choose(self._json['categories'], chosen, path)
        classes = tuple(category['name'] for category in self._categories)
        things = tuple(c['name'] for c in self._categories if c['isthing'])
        meta.update(classes=classes, thing_classes=things)
        if all('color' in category for category in self._categories):
            meta.setdefault('palette', [list(c['color']) for c in self._categories])
        super().__init__(
            ann_file=ann_file,
            data_prefix=dict(data_prefix),
            data_root=data_root,
            metainfo=meta,
            **{'img_suffix': '', 'seg_map_suffix': '', **kwargs},
        )

    def load_data_list(self) -> list[dict]:
        """One entry per image, in the order of the JSON."""
        index = {category['id']: i for i, category in enumerate(self._categories)}
        things = tuple(i for i, category in enumerate(self._categories) if category['isthing'])
        images, labels = (Path(self.data_prefix.get(k) or '') for k in ('img_path', 'seg_map_path'))
        by_image = {a['image_id']: a for a in self._json['annotations']}
        data_list = []
        for image in self._json['images']:
            annotation = by_image.get(image['id'])
            if annotation is None:
                raise UserError(
                    f'{self.ann_file}: expected an annotation of every image, found none of '
                    f'{image["file_name"]}. Remove the image from the JSON or annotate it.'
                )
            folder = image['file_name'].partition('_')[0]
            name = self.img_name.format(file_name=image['file_name'], id=image['id'], folder=folder)
            segments = [
                dict(
                    id=int(s['id']),
                    category=index.get(s['category_id'], VOID_LABEL),
                    is_thing=index.get(s['category_id']) in things,
                    is_crowd=bool(s.get('iscrowd', 0)),
                )
                for s in annotation['segments_info']
            ]
            data_list.append(
                dict(
                    img_path=str(images / name),
                    seg_map_path=str(labels / annotation['file_name']),
                    img_id=image['id'],
                    segments_info=segments,
                    thing_classes=things,
                    label_map=None,
                    reduce_zero_label=False,
                    seg_fields=[],
                )
            )
        del self._json  # hundreds of megabytes for COCO itself
        return data_list


def _read(path: Path) -> dict:
    """The JSON, checked for what is read from it."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(
            f'{path}: expected the panoptic annotations as JSON, found no such file. Correct '
            f'data_root and ann_file.'
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path}: expected JSON in COCO panoptic format, found what cannot be read: {error}. '
            f'Copy the file again.'
        ) from error
    parts = dict(
        images=('id', 'file_name'),
        annotations=('image_id', 'file_name', 'segments_info'),
        categories=('id', 'name', 'isthing'),
    )
    for part, keys in parts.items():
        rows = content.get(part) if isinstance(content, dict) else None
        lost = [k for k in keys if not isinstance(rows, list) or any(k not in r for r in rows)]
        if lost:
            raise UserError(
                f'{path}: expected COCO panoptic format with {", ".join(lost)} in every entry of '
                f'{part!r}, found none. An instances JSON has no segments_info: use the panoptic '
                f'one.'
            )
    return content


def _choose(categories: list[dict], classes: Sequence[str] | None, path: Path) -> list[dict]:
    """The categories of the chosen classes, in their order."""
    by_name = {category['name']: category for category in categories}
    names = list(by_name) if classes is None else list(classes)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f'{path}: expected the chosen classes among its {len(by_name)} categories, found no '
            f'{unknown}. Correct metainfo.classes.'
        )
    if len(names) > VOID_LABEL:
        raise UserError(
            f'{path}: expected at most {VOID_LABEL} classes, since label maps have 8 bits, found '
            f'{len(names)}. Choose some with metainfo.classes.'
        )
    return [by_name[name] for name in names]


@TRANSFORMS.register_module()
class LoadAnnotationsFromCocoPanoptic(BaseTransform):
    """Add `gt_seg_map` (H, W) uint8 and `gt_panoptic_map` (H, W) int32 from a panoptic PNG.

    Takes the place of `LoadAnnotations` and `LoadCityscapesPanoptic`, and gives what they give; ids
    are those of `mmprompt.datasets.transforms`. Things are numbered from 1 in the order of
    ``segments_info``; what the format has once per image and class, stuff and crowds, becomes one
    segment.

    Args:
        allow_hidden: accept segments that no pixel of the PNG shows. The usual conversion of ADE20K
            paints things over stuff, and lists what they cover as well.
    """

    def __init__(self, allow_hidden: bool = False) -> None:
        self.allow_hidden = allow_hidden

    def transform(self, results: dict) -> dict:
        """Read, translate, register.

        Raises:
            UserError: the PNG is missing, damaged or has no colours, its ids are not those of the
                JSON, or a class has more than 999 single segments.
        """
        ids = rgb_to_ids(self._image(Path(results['seg_map_path'])))
        segments = results['segments_info']
        listed, ours, labels = self._tables(segments, results['seg_map_path'])
        found, place = np.unique(ids, return_inverse=True)
        self._check(listed, found[found != 0], results['seg_map_path'], self.allow_hidden)
        row = np.searchsorted(listed, found)  # 0 is listed too, as void
        place = place.reshape(ids.shape)
        results['gt_seg_map'] = labels[row][place]
        results['gt_panoptic_map'] = ours[row][place]
        results['seg_fields'] += ['gt_seg_map', 'gt_panoptic_map']
        return results

    @staticmethod
    def _image(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as file:
                image = np.array(file)
        except FileNotFoundError as error:
            raise UserError(
                f'{path}: expected the panoptic PNG that the JSON names, found no such file. '
                f'Correct data_prefix.seg_map_path.'
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(
                f'{path}: expected a readable PNG, found: {error}. Copy the file again.'
            ) from error
        if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] < 3:
            raise UserError(
                f'{path}: expected a panoptic PNG whose colours (R, G, B) are ids, found '
                f'{image.shape} {image.dtype}. Use the PNGs of the panoptic archive.'
            )
        return image

    @staticmethod
    def _tables(segments: Sequence[Mapping], path: str) -> tuple[np.ndarray, ...]:
        """Listed ids in rising order, 0 first, and of each our id and its label."""
        rows, count = [(0, 0, VOID_LABEL)], {}
        for segment in segments:
            label = segment['category']
            if label == VOID_LABEL:
                rows.append((segment['id'], 0, label))
                continue
            number = 0
            if segment['is_thing'] and not segment['is_crowd']:
                number = count[label] = count.get(label, 0) + 1
            rows.append((segment['id'], (label + 1) * ID_DIVISOR + number, label))
        most = max(count.values(), default=0)
        if most >= ID_DIVISOR:
            raise UserError(
                f'{path}: expected at most {ID_DIVISOR - 1} segments of one class in an image, '
                f'found {most}. Cut the image into parts.'
            )
        listed, ours, labels = np.array(sorted(rows), dtype=np.int32).T
        return listed, ours, labels.astype(np.uint8)

    @staticmethod
    def _check(listed: np.ndarray, found: np.ndarray, path: str, allow_hidden: bool) -> None:
        """Ids of the PNG are those of the JSON."""
        stray, lost = np.setdiff1d(found, listed), np.setdiff1d(listed[1:], found)
        lost = lost[:0] if allow_hidden else lost
        if len(stray) or len(lost) or len(np.unique(listed)) < len(listed):
            raise UserError(
                f'{path}: expected the {len(listed) - 1} ids of segments_info, each once, found '
                f'{len(stray)} others ({stray[:3].tolist()} …) and {len(lost)} missing '
                f'({lost[:3].tolist()} …). PNG and JSON belong to different versions of the data: '
                f'unpack both again.'
            )
