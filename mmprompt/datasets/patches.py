"""Patches in a pipeline: loaded from a store, kept on their image, packed with the true units.

    LoadImageFromFile, LoadPatches, <labels>, LoadUnits, <DetResize, DetRandomFlip ...>,
    PackPatchInputs

Patches and units stay in the frame of the original image until they are packed; then the recorded
geometry places them in the input, and a crop is cut out of their run lengths.

Notation: N patches, K true units, (H, W) pixels of the original image, (h, w) of the input.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.patches import PatchSet, box_iop, box_iou, cropped
from mmprompt.datasets.patch_geometry import Placement, placement, remember
from mmprompt.datasets.transforms import CITYSCAPES_THINGS, PackPanopticInputs
from mmprompt.datasets.units import TrueUnits
from mmprompt.registry import TRANSFORMS


def other_file(store: PatchStore, key: str, path: str | os.PathLike) -> tuple[int, int] | None:
    """Tell whether the patches under a key were made of another file than this one.

    Returns:
        The `image_digest` that the store knows and that of the file if they differ. None if they do
        not, if the store knows none, or if there is no such file on this machine.
    """
    expected = store.digest(key)
    if expected is None:
        return None
    try:
        found = image_digest(path)
    except OSError:  # it was loaded, so it lies in a storage that is no disk
        return None
    return None if found == expected else (expected, found)


@TRANSFORMS.register_module()
class LoadPatches(BaseTransform):
    """Add `patch_set`, the stored patches of the image, and `patch_ids`, those that are used.

    Runs right behind `LoadImageFromFile`. The store is opened once per process, at the first image.

    Args:
        store: file of the patch store, a pattern or a list of its shards.
        max_patches: most patches of an image; those of highest score, and of equal scores (some
            generators know none) those of more pixels. None keeps all, as the paper does.
        min_area: patches of fewer pixels are left out.
        min_score: patches of a lower score are left out.
        check_image: whether the patches must have been made of this very file. Stores that know no
            digests, and images that are no files of this machine, are believed.
    """

    def __init__(
        self,
        store: str | os.PathLike | Sequence[str],
        max_patches: int | None = None,
        min_area: int = 0,
        min_score: float = 0.0,
        check_image: bool = True,
    ) -> None:
        self.store = PatchStore(store)
        self.max_patches = max_patches
        self.min_area = min_area
        self.min_score = min_score
        self.check_image = check_image
        self._checked: set[str] = set()

    def transform(self, results: dict) -> dict:
        """Look up, compare size and digest of the image, choose.

        Raises:
            UserError: the store is missing or damaged, has no patches of this image or those of
                another one; or the image is no longer the original.
        """
        remember(results)
        key = self.store.find(results['img_path'])
        patches = self.store.get(key)
        size = tuple(int(n) for n in results['ori_shape'][:2])
        if patches.size != size:
            turned = (
                ' An EXIF orientation may have turned it.' if patches.size == size[::-1] else ''
            )
            raise UserError(
                f'{results["img_path"]}: expected patches of an image of {size[0]}x{size[1]} '
                f'pixels (height x width), found those of {patches.size[0]}x{patches.size[1]} in '
                f'{self.store.path} under {key!r}.{turned} Make them of these images: '
                f'{self._command()}'
            )
        if self.check_image:
            self._check(str(results['img_path']), key)
        results['patch_set'] = patches
        results['patch_ids'] = self.chosen(patches)
        return results

    def _check(self, path: str, key: str) -> None:
        if path in self._checked:
            return
        differ = other_file(self.store, key, path)
        if differ is not None:
            expected, found = differ
            raise UserError(
                f'{path}: expected the image that the patches in {self.store.path} under {key!r} '
                f'were made of (CRC-32 {expected:08x}), found another file ({found:08x}). If these '
                f'are the patches of another split, give LoadPatches the store of this one. If the '
                f'images were made anew, make their patches anew: {self._command()}. If only the '
                f'file was written anew, with the same pixels, set LoadPatches.check_image=False.'
            )
        self._checked.add(path)

    def _command(self) -> str:
        generator = self.store.meta['generator']
        if generator == 'import':
            return 'python tools/import_patches.py CONFIG --split SPLIT --source ... --out STORE'
        return (
            f'python tools/generate_patches.py CONFIG --generator {generator} --split SPLIT '
            f'--out STORE'
        )

    def chosen(self, patches: PatchSet) -> np.ndarray:
        """Rows (n,) int64 of the patches that are used, in rising order."""
        kept = (patches.areas >= max(self.min_area, 1)) & (patches.scores >= self.min_score)
        ids = np.flatnonzero(kept)
        if self.max_patches is not None and len(ids) > self.max_patches:
            order = np.lexsort((-patches.areas[ids], -patches.scores[ids]))
            ids = np.sort(ids[order[: self.max_patches]])
        return ids


@TRANSFORMS.register_module()
class LoadUnits(BaseTransform):
    """Add `units`, the `TrueUnits` of the original image, from the labels that were loaded.

    Of `gt_masks_coco` (`LoadCocoInstances`), else of `gt_panoptic_map` (`LoadCityscapesPanoptic`,
    `LoadAnnotationsFromCocoPanoptic`), else the regions of `gt_seg_map` alone.

    Args:
        thing_classes: classes with instances. A data set that says in each sample what its things
            are, as `CocoPanopticSegDataset` does, comes first.
        keep_truth: whether the panoptic map and the masks of instances stay in the results, for
            evaluators. Training needs the units alone.
        whole_regions: of masks of instances that overlap, such as parts and wholes: the region of
            a class is all of its masks. Otherwise the smaller mask hides the larger, as in the map.
    """

    def __init__(
        self,
        thing_classes: Sequence[int] = CITYSCAPES_THINGS,
        keep_truth: bool = True,
        whole_regions: bool = False,
    ) -> None:
        self.thing_classes = tuple(thing_classes)
        self.keep_truth = keep_truth
        self.whole_regions = whole_regions

    def transform(self, results: dict) -> dict:
        """Make the units; labels that were loaded after a resizing are those of the original too.

        Raises:
            UserError: there are no labels, or they are not those of the original image.
        """
        labels = results.get('gt_panoptic_map', results.get('gt_seg_map'))
        self._check(labels, results)
        things = results.get('thing_classes', self.thing_classes)
        if 'gt_masks_coco' in results:
            masks = results['gt_masks_coco']
            results['units'] = TrueUnits.from_masks(labels, masks, self.whole_regions)
        elif 'gt_panoptic_map' in results:
            results['units'] = TrueUnits.from_map(labels, things)
        else:
            results['units'] = TrueUnits.from_labels(labels)
        if results.get('homography_matrix') is None:  # then the labels follow the image
            results['unit_labels'] = results.get('gt_seg_map')
        if not self.keep_truth:
            results.pop('gt_masks_coco', None)
            if results.pop('gt_panoptic_map', None) is not None:
                results['seg_fields'].remove('gt_panoptic_map')
        return results

    @staticmethod
    def _check(labels: np.ndarray | None, results: dict) -> None:
        path = results.get('img_path', 'pipeline')
        if labels is None:
            raise UserError(
                f'{path}: LoadUnits expects labels, found neither gt_panoptic_map nor gt_seg_map. '
                f'Put it behind LoadAnnotations and LoadCityscapesPanoptic, or behind '
                f'LoadAnnotationsFromCocoPanoptic or LoadCocoInstances.'
            )
        matrix = np.asarray(results.get('homography_matrix', np.eye(3)))
        scaled = (matrix == np.diag(np.diag(matrix))).all() and (np.diag(matrix) > 0).all()
        size = tuple(results['ori_shape'][:2])
        if labels.shape[:2] != size or not scaled:
            raise UserError(
                f'{path}: LoadUnits expects the labels of the original image of {size} pixels, '
                f'found {labels.shape[:2]} and a geometric transform before. Put LoadUnits behind '
                f'the loading of labels, before any flip or crop.'
            )


@TRANSFORMS.register_module()
class PackPatchInputs(PackPanopticInputs):
    """`PackPanopticInputs` plus `patches`, `patch_set` and, where labels are, `gt_units`.

    - `patches`: InstanceData of the N patches that the input shows: `bboxes` (N, 4) float32 xyxy in
      pixels of the input, tight around what is seen; `regions` (N, 7, 7) bool, the cells of this
      box that the patch covers; `scores` (N,) float32; `ids` (N,) int64, rows of the stored set.
    - `patch_set`: the stored `PatchSet`, in the frame of the original image.
    - `gt_units`: InstanceData of the K units that the input shows: `labels` (K,) int64;
      `is_instance` (K,) bool; `bboxes` (K, 4) as of patches; `mask_iop` (K, N) float32, the share
      of a patch that lies in the unit, in original pixels; `box_iop` and `box_iou` (K, N) of boxes;
      with the metainfo `noise_seed`, for what a model draws for this sample.
    - `gt_instances`: of overlapping instances, `masks` (n, H, W) bool, `labels` and `is_crowd`, in
      the frame of the original image, for evaluators.

    An original pixel is seen if its centre is in the input. A patch or a unit without one is left
    out, of every field.

    Args:
        min_area: also units of which fewer original pixels are seen are left out.
        kwargs: of `PackPanopticInputs`.
    """

    def transform(self, results: dict) -> dict:
        """Place, cut, pack.

        Raises:
            UserError: there are no patches, or the geometry was changed without a record; see
                `mmprompt.datasets.patch_geometry`.
        """
        if 'patch_set' not in results:
            raise UserError(
                f'{results.get("img_path", "pipeline")}: PackPatchInputs expects patches, found '
                f'none. Put LoadPatches behind LoadImageFromFile.'
            )
        place = placement(results)
        packed = super().transform(results)
        fields = view(results, place, self.min_area)
        if 'gt_units' in fields:  # drawn where samples have seeds of their own
            fields['gt_units'].set_metainfo(dict(noise_seed=int(np.random.randint(2**31))))
        if 'gt_masks_coco' in results:
            fields['gt_instances'] = results['gt_masks_coco'].decoded()
        packed['data_samples'].set_data(fields)
        return packed


def view(results: dict, place: Placement, min_area: int = 1) -> dict:
    """What the input shows: `patches`, `patch_set` and, of `units`, `gt_units`.

    Args:
        results: with what `LoadPatches` and `LoadUnits` add.
        place: where the original lies in the input.
        min_area: least number of original pixels that are seen of a unit.
    """
    stored, ids, units = (results.get(key) for key in ('patch_set', 'patch_ids', 'units'))
    chosen = stored if len(ids) == len(stored) else stored.select(ids)
    crop = None if place.whole else place.rect
    left = cropped(chosen, crop)
    boxes = place.boxes(left.boxes)
    patches = InstanceData(
        bboxes=torch.from_numpy(boxes),
        regions=torch.from_numpy(place.regions(left.regions).copy()),
        scores=torch.from_numpy(chosen.scores[left.index]),
        ids=torch.from_numpy(np.asarray(ids, np.int64)[left.index]),
    )
    fields = dict(patches=patches, patch_set=stored)
    if units is None:
        return fields
    seen = units.seen(chosen.runs, crop)
    kept = seen.pixels >= max(min_area, 1)
    unit_boxes = place.boxes(seen.boxes[kept])
    mask_iop = seen.shared[kept][:, left.index] / np.maximum(left.areas, 1)
    pairs = boxes.astype(np.float64), unit_boxes.astype(np.float64)
    fields['gt_units'] = InstanceData(
        labels=torch.from_numpy(units.labels[kept]),
        is_instance=torch.from_numpy(units.is_instance[kept]),
        bboxes=torch.from_numpy(unit_boxes),
        mask_iop=torch.from_numpy(mask_iop.astype(np.float32)),
        box_iop=torch.from_numpy(box_iop(*pairs).astype(np.float32)),
        box_iou=torch.from_numpy(box_iou(*pairs).astype(np.float32)),
    )
    return fields
