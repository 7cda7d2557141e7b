"""Instance annotations in COCO's format: polygons or run lengths, which may overlap, and crowds."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset

from mmprompt.common import rle
from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_labels import compress, read_coco
from mmprompt.datasets.coco_panoptic import VOID_LABEL
from mmprompt.datasets.folder import shown
from mmprompt.datasets.transforms import ID_DIVISOR
from mmprompt.datasets.units import CocoMasks
from mmprompt.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class CocoInstanceSegDataset(BaseSegDataset):
    """Images with a COCO instances JSON, for semantic, instance and panoptic segmentation.

    Classes are the categories in the order of the JSON, and all are things. Load the annotations
    with `LoadAnnotationsFromCocoInstances`. Images without any instance are kept.

    Args:
        ann_file: the JSON, below `data_root` unless absolute.
        data_prefix: ``img_path``, the folder that ``file_name`` starts from.
        metainfo: ``classes`` chooses categories by name, and their order; all others are ignored.
        kwargs: of `mmseg.BaseSegDataset`.

    Raises:
        UserError: the JSON is missing, damaged or of another format, or a chosen class is not in
            it.
    """

    def __init__(
        self,
        ann_file: str,
        data_prefix: Mapping[str, str],
        data_root: str | None = None,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs,
    ) -> None:
        path = Path(data_root or '') / ann_file
        self._json = self._read(path)
        chosen = (metainfo or {}).get('classes')
        self._index, names = _classes(self._json['categories'], chosen, path)
        super().__init__(
            ann_file=ann_file,
            data_prefix=dict(data_prefix),
            data_root=data_root,
            metainfo={**(metainfo or {}), 'classes': names, 'thing_classes': names},
            **{'img_suffix': '', **kwargs},
        )

    @staticmethod
    def _read(path: Path) -> dict:
        """The JSON as it is to be understood."""
        return read_coco(path)

    def load_data_list(self) -> list[dict]:
        """One entry per image, in the order of the JSON."""
        folder = Path(self.data_prefix.get('img_path') or '')
        things = tuple(range(len(self._metainfo['classes'])))
        instances = _by_image(self._json['annotations'], self._index)
        data_list = [
            dict(
                img_path=str(folder / image['file_name']),
                img_id=image['id'],
                instances=instances.get(image['id'], []),
                thing_classes=things,
                label_map=None,
                reduce_zero_label=False,
                seg_fields=[],
                # Loading the image says it again; who reads the labels alone needs it here.
                **({'ori_shape': (image['height'], image['width'])} if 'height' in image else {}),
            )
            for image in self._json['images']
        ]
        del self._json  # hundreds of megabytes for COCO itself
        return data_list


@TRANSFORMS.register_module()
class LoadAnnotationsFromCocoInstances(BaseTransform):
    """Add `gt_masks_coco`, `gt_seg_map` and `gt_panoptic_map` to an image of its `instances`.

    The maps are painted, crowds first, then from the largest mask to the smallest, so that of
    overlapping ones the smaller is seen; what no mask covers is void. Masks are kept whole beside.
    """

    def transform(self, results: dict) -> dict:
        """Compress, paint, register.

        Raises:
            UserError: an annotation cannot be used, or a class has more than 999 instances.
        """
        masks = load_masks(results['instances'], results)
        results['gt_masks_coco'] = masks
        results['gt_panoptic_map'] = paint(masks, results['img_path'])
        void = results['gt_panoptic_map'] < ID_DIVISOR
        labels = np.where(void, VOID_LABEL, results['gt_panoptic_map'] // ID_DIVISOR - 1)
        results['gt_seg_map'] = labels.astype(np.uint8)
        results['seg_fields'] += ['gt_seg_map', 'gt_panoptic_map']
        return results


@TRANSFORMS.register_module()
class LoadCocoInstances(BaseTransform):
    """Add `gt_masks_coco` from a COCO instances JSON to images of any data set.

    A panoptic map hides what overlaps. With this, `InstanceAP` measures against the annotations
    that published figures are of, and the map stays what panoptic quality is measured against.
    The JSON is read at the first image, once per process.

    Args:
        ann_file: the JSON. An image is the one whose ``file_name`` is the end of its path.
        classes: the data set's, in which categories are found by name; None if the JSON lists them
            in the data set's order.
    """

    def __init__(self, ann_file: str, classes: Sequence[str] | None = None) -> None:
        self.ann_file = ann_file
        self.classes = classes
        self._instances: dict[str, list[dict]] | None = None

    def transform(self, results: dict) -> dict:
        """Look up and compress.

        Raises:
            UserError: the JSON cannot be used, has no such image, or a category is no class.
        """
        if self._instances is None:
            self._instances = self._read()
        parts = PurePosixPath(str(results['img_path']).replace('\\', '/')).parts
        ends = ('/'.join(parts[i:]) for i in range(len(parts)))
        name = next((end for end in ends if end in self._instances), None)
        if name is None:
            raise UserError(
                f'{self.ann_file}: expected the image {results["img_path"]} under the end of its '
                f'path, found no such file_name. Give the annotations of this split.'
            )
        results['gt_masks_coco'] = load_masks(self._instances[name], results)
        return results

    def _read(self) -> dict[str, list[dict]]:
        content = read_coco(Path(self.ann_file))
        categories = content['categories']
        names = [str(c['name']).strip() for c in categories]
        classes = names if self.classes is None else [str(c).strip() for c in self.classes]
        lost = [name for name in names if name not in classes]
        if lost:
            raise UserError(
                f'{self.ann_file}: expected categories that are classes of the data set, found '
                f'{shown(lost)}. Give LoadCocoInstances the classes as the JSON names them.'
            )
        index = {c['id']: classes.index(name) for c, name in zip(categories, names)}
        instances = _by_image(content['annotations'], index)
        return {image['file_name']: instances.get(image['id'], []) for image in content['images']}


def load_masks(instances: Sequence[Mapping], results: Mapping) -> CocoMasks:
    """Masks of one image's instances; those without a pixel are left out.

    Args:
        instances: ``label``, ``is_crowd``, ``segmentation`` and ``box`` (xywh or None) of each.
        results: ``img_path`` and ``ori_shape`` of the image.
    """
    size = tuple(int(n) for n in results['ori_shape'][:2])
    where = f'{results["img_path"]}: an annotation'
    rles = [compress(each['segmentation'], size, where) for each in instances]
    runs = rle.parse(rles, size, where)
    kept = np.flatnonzero(runs.areas()).tolist()
    tight = runs.boxes().astype(np.float32)
    for i in kept:
        if instances[i]['box'] is not None:
            x, y, width, height = instances[i]['box']
            tight[i] = x, y, x + width, y + height
    return CocoMasks(
        size=size,
        rles=tuple(rles[i] for i in kept),
        labels=np.array([instances[i]['label'] for i in kept], np.int64),
        is_crowd=np.array([instances[i]['is_crowd'] for i in kept], bool),
        boxes=tight[kept].reshape(-1, 4),
    )


def paint(masks: CocoMasks, where: str = 'an image') -> np.ndarray:
    """Panoptic map (H, W) int32 of masks, see `LoadAnnotationsFromCocoInstances`.

    Raises:
        UserError: a class has more instances than ids.
    """
    from pycocotools import mask as coco

    panoptic = np.zeros(masks.size, np.int32)
    areas = rle.parse(masks.rles, masks.size, where).areas().tolist()
    order = sorted(range(len(areas)), key=lambda i: (not masks.is_crowd[i], -areas[i]))
    single = ~masks.is_crowd
    numbers = np.zeros(len(areas), np.int64)
    for label in np.unique(masks.labels):
        mine = np.flatnonzero((masks.labels == label) & single)
        numbers[mine] = np.arange(1, len(mine) + 1)
    if numbers.max(initial=0) >= ID_DIVISOR:
        raise UserError(
            f'{where}: expected at most {ID_DIVISOR - 1} instances of one class, found '
            f'{numbers.max()}. Cut the image into parts.'
        )
    ids = (masks.labels + 1) * ID_DIVISOR + numbers
    for i in order:
        drawn = coco.decode(dict(size=list(masks.size), counts=masks.rles[i]))
        panoptic[drawn > 0] = ids[i]
    return panoptic


def _classes(
    categories: Sequence[Mapping], chosen: Sequence[str] | None, path: Path
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Class of each category id, and the names of the classes."""
    by_name = {c['name']: c['id'] for c in categories}
    names = tuple(by_name if chosen is None else chosen)
    lost = [name for name in names if name not in by_name]
    if lost or len(names) > VOID_LABEL:
        found = f'{shown(lost)} in no category' if lost else f'{len(names)} classes'
        raise UserError(
            f'{path}: expected at most {VOID_LABEL} classes, each a category, found {found}; '
            f'categories are {shown(by_name)}. Correct metainfo.classes of the dataset.'
        )
    return {by_name[name]: i for i, name in enumerate(names)}, names


def _by_image(annotations: Sequence[Mapping], index: Mapping[int, int]) -> dict[Any, list[dict]]:
    """Instances of each image id; categories without a class are left out."""
    found: dict[Any, list[dict]] = {}
    for annotation in annotations:
        label = index.get(annotation.get('category_id'))
        if label is not None:
            instance = dict(
                label=label,
                is_crowd=bool(annotation.get('iscrowd', 0)),
                segmentation=annotation.get('segmentation'),
                box=annotation.get('bbox'),
            )
            found.setdefault(annotation['image_id'], []).append(instance)
    return found
