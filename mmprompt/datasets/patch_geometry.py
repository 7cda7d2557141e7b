"""Where the original image lies in the network's input, and whether the pipeline tells the truth.

MMDetection's geometric transforms multiply what they do into ``homography_matrix``, in box
coordinates: the centre of pixel (0, 0) is (1/2, 1/2). (In the coordinates of pixels it would be
T(-1/2) H T(1/2).) Those of MMCV and MMSegmentation record nothing, so patches would stay behind.

What is caught, of geometry that nobody recorded:

- when the dataset is built under `GuardedDataset`, every transform known to do it, by name, however
  deep it is wrapped (`check_pipeline`);
- at every sample, of whatever transform: a size or flip without any record, labels that lie
  elsewhere than the record says, and an image that is plainly the original flipped or stretched in
  another way than the record says (`placement`).

What is not: a crop or a shift by a transform that no list knows, in a pipeline without labels or on
an image of one label; and a shift of labels by a few pixels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.common.patches import whole_pixels

_ROUNDING = 1e-3  # pixels that float32 matrices may be off: a centre on an edge is not in doubt
GRID = 32  # points on each side that are compared
REMEDY = (
    'Use DetResize, DetRandomFlip, DetRandomCrop, DetRandomChoiceResize and DetResizeShortestEdge '
    'in the pipeline'
)
_DET = 'mmdet.datasets.transforms'
#: Transforms that record what they do. A class is what the first known of its bases is.
RECORDED = {
    *(f'mmprompt.datasets.det_transforms.{name}' for name in ('DetResize', 'DetRandomFlip')),
    *(
        f'{_DET}.transforms.{name}'
        for name in ('Resize', 'FixScaleResize', 'FixShapeResize', 'RandomFlip', 'RandomCrop')
    ),
    *(f'{_DET}.geometric.{name}' for name in ('TranslateX', 'TranslateY')),
}
#: Transforms that do not.
UNRECORDED = {
    *(f'mmcv.transforms.processing.{name}' for name in ('Resize', 'RandomFlip', 'CenterCrop')),
    *(
        f'mmseg.datasets.transforms.transforms.{name}'
        for name in (
            'Resize', 'RandomFlip', 'RandomCrop', 'RandomRotate', 'RandomRotFlip', 'RandomMosaic',
            'ResizeToMultiple', 'RandomDepthMix', 'BioMedical3DRandomCrop',
            'BioMedical3DRandomFlip',
        )
    ),
    *(
        f'{_DET}.transforms.{name}'
        for name in (
            'Expand', 'MinIoURandomCrop', 'RandomCenterCropPad', 'RandomShift', 'RandomAffine',
            'Mosaic', 'CachedMosaic', 'MixUp', 'CachedMixUp', 'CopyPaste',
        )
    ),
    f'{_DET}.instaboost.InstaBoost',
}  # fmt: skip
#: Transforms that record a turn, which boxes and the cells of their regions cannot follow.
TURNING = {f'{_DET}.geometric.{name}' for name in ('Rotate', 'ShearX', 'ShearY')}


class Placement(NamedTuple):
    """x' = scale_x * x + offset_x and the same for y: original -> input, in box coordinates."""

    scale: np.ndarray  # (2,) x and y; negative where the image is flipped
    offset: np.ndarray  # (2,)
    size: tuple[int, int]  # (H, W) of the original
    canvas: tuple[int, int]  # (h, w) of the input

    @property
    def flipped(self) -> tuple[bool, bool]:
        """Whether left and right, and whether top and bottom, have changed places."""
        return bool(self.scale[0] < 0), bool(self.scale[1] < 0)

    @property
    def rect(self) -> tuple[int, int, int, int]:
        """The original pixels whose centres are in the input: x1 y1 x2 y2."""
        far = np.array(self.canvas[::-1])
        ends = np.sort([(-self.offset) / self.scale, (far - self.offset) / self.scale], axis=0)
        return whole_pixels(ends.ravel() - _ROUNDING, self.size)

    @property
    def whole(self) -> bool:
        """Whether all of the original is in the input."""
        return self.rect == (0, 0, self.size[1], self.size[0])

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy of the original in the input, clipped to it; float32."""
        ends = boxes.reshape(-1, 2, 2).astype(np.float64) * self.scale + self.offset
        ends = np.sort(ends, axis=1).clip(0, self.canvas[::-1])
        return ends.reshape(-1, 4).astype(np.float32)

    def regions(self, regions: np.ndarray) -> np.ndarray:
        """Cells of boxes (N, 7, 7) of the original as they lie in the input."""
        across, down = self.flipped
        return regions[:, :: -1 if down else 1, :: -1 if across else 1]

    def original(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the input in the original, x and y."""
        return (points - self.offset) / self.scale


def remember(results: dict) -> None:
    """Note how the original looks, for `placement`; to be called before any geometry.

    Raises:
        UserError: the image is no longer the original.
    """
    image, shape = results['img'], tuple(results['ori_shape'][:2])
    if results.get('homography_matrix') is not None or tuple(image.shape[:2]) != shape:
        raise UserError(
            f'{results.get("img_path", "pipeline")}: LoadPatches expects the original image of '
            f'{shape} pixels, found {tuple(image.shape[:2])}, and a geometric transform before it. '
            f'Put LoadPatches right behind LoadImageFromFile.'
        )
    results['patch_view'] = _grey(image, _grid(shape))


def placement(results: dict) -> Placement:
    """Where the original lies in ``results['img']``.

    Raises:
        UserError: the geometry was changed without a record, or by a turn or a shear.
    """
    size = tuple(int(n) for n in results['ori_shape'][:2])
    canvas = tuple(int(n) for n in results['img'].shape[:2])
    matrix = results.get('homography_matrix')
    if matrix is None:
        if canvas != size or results.get('flip'):
            what = 'is flipped' if canvas == size else f'has {canvas} pixels in place of {size}'
            raise _moved(results, f'the image {what} and homography_matrix was never written')
        matrix = np.eye(3)
    matrix = np.asarray(matrix, np.float64)
    matrix = matrix / matrix[2, 2]
    turn = np.abs([matrix[0, 1], matrix[1, 0], *(matrix[2, :2] * max(size))]).max()
    if turn > 1e-6 or not (matrix[[0, 1], [0, 1]] != 0).all():
        raise UserError(
            f'{results.get("img_path", "pipeline")}: expected an image that was resized, flipped '
            f'and cropped, found the homography_matrix {matrix.round(4).tolist()} of a turn or a '
            f'shear, which boxes of patches cannot follow. Remove Rotate, ShearX or ShearY.'
        )
    place = Placement(matrix[[0, 1], [0, 1]], matrix[:2, 2], size, canvas)
    if tuple(results.get('img_shape', canvas)[:2]) != canvas:
        raise _moved(results, f'img_shape says {results["img_shape"]}, the image has {canvas}')
    _check_labels(results, place)
    _check_view(results, place)
    return place


def _moved(results: dict, found: str) -> UserError:
    return UserError(
        f'{results.get("img_path", "pipeline")}: patches cannot follow the image, since a '
        f'transform changed its geometry and did not record it in homography_matrix: {found}. '
        f'{REMEDY}; those of MMCV and MMSegmentation (Resize, RandomFlip, RandomCrop) record '
        f'nothing.'
    )


def _grid(shape: tuple[int, int]) -> np.ndarray:
    """Points (GRID^2, 2) x and y, spread over an image (H, W)."""
    sides = [(np.arange(GRID) + 0.5) * n / GRID for n in shape[::-1]]
    return np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)


def _at(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of the pixels in which points (n, 2) lie, those at the border for points outside."""
    x, y = np.floor(points + 1e-6).astype(int).T
    return image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)]


def _grey(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    values = _at(image, points).astype(np.float64)
    return values.mean(axis=-1) if values.ndim == 2 else values


def _check_labels(results: dict, place: Placement) -> None:
    """Compare the label map with the one that was loaded, where labels do not change nearby."""
    before, after = results.get('unit_labels'), results.get('gt_seg_map')
    if before is None or after is None or after.shape[:2] != place.canvas:
        return
    points = _grid(place.canvas)
    source = place.original(points)
    # Rounding to the nearest pixel, at two resizings of one image, is off by less than this.
    reach = np.ceil(2 / np.abs(place.scale)) + 1
    inside = ((source >= reach) & (source < np.array(place.size[::-1]) - reach)).all(axis=1)
    points, source = points[inside], source[inside]
    was, now = _at(before, source), _at(after, points)
    calm = now != 255  # what was cut out of the image, or filled up
    for corner in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        calm &= _at(before, source + reach * corner) == was
    was, now = was[calm], now[calm]
    if not len(was):
        return
    values, counts = np.unique(was, return_counts=True)
    common = values[counts.argmax()]
    telling = (was != common) | (now != common)
    wrong = int((was != now).sum())
    if wrong >= 12 and wrong > 0.25 * telling.sum():
        raise _moved(
            results,
            f'of {int(telling.sum())} points that tell places apart {wrong} have another label '
            f'than homography_matrix says',
        )


def _check_view(results: dict, place: Placement) -> None:
    """Compare the image with the original as recorded, flipped otherwise, and stretched."""
    view, canvas = results.get('patch_view'), place.canvas
    if view is None:
        return
    points, far = _grid(place.canvas), np.array(canvas[::-1])
    now = _grey(results['img'], points)
    mirrored = [np.where(f, far - points, points) for f in ((1, 0), (0, 1), (1, 1))]
    recorded = _likeness(view, now, place.original(points) / np.array(place.size[::-1]))
    others = [place.original(p) / np.array(place.size[::-1]) for p in mirrored]
    others += [p / far for p in (points, *mirrored)]  # the whole image, stretched
    # Scenes are much alike when flipped, so unlikeness is compared: a true record leaves little.
    found = 1 - max(_likeness(view, now, other) for other in others)
    if recorded < 0.9 and found < 0.25 * (1 - recorded):
        raise _moved(results, 'the image is the original flipped or resized in another way')


def _likeness(view: np.ndarray, now: np.ndarray, source: np.ndarray) -> float:
    """|correlation| of the input with the original at relative places (n, 2); 0 if it tells none.

    The sign says nothing: photometric transforms may invert an image.
    """
    inside = ((source >= 0) & (source < 1)).all(axis=1)
    if inside.sum() < GRID:
        return 0.0
    was, now = _at(view.reshape(GRID, GRID), source[inside] * GRID), now[inside]
    was, now = was - was.mean(), now - now.mean()
    norm = np.sqrt((was**2).sum() * (now**2).sum())
    return float(abs((was * now).sum()) / norm) if norm > 1e-6 else 0.0


def check_pipeline(pipeline: Any) -> None:
    """Look for transforms that move an image without recording it, if patches are packed.

    Args:
        pipeline: a built `Compose`, or anything else, which passes.

    Raises:
        UserError: naming the transform.
    """
    steps = list(_steps(pipeline, set()))
    if not any(type(step).__name__ == 'PackPatchInputs' for step in steps):
        return
    for step in steps:
        name = f'{type(step).__module__.split(".")[0]}.{type(step).__name__}'
        kind = _kind(step)
        if kind == 'unrecorded':
            raise UserError(
                f'{name}: expected transforms that record what they do in homography_matrix, so '
                f'that patches can follow the image; {name} does not. {REMEDY} in its place.'
            )
        if kind == 'turning':
            raise UserError(
                f'{name}: expected transforms that resize, flip, crop or shift; boxes of patches '
                f'and the cells of their regions cannot follow a turn or a shear. Remove {name}.'
            )


def _kind(step: Any) -> str | None:
    for base in type(step).__mro__:
        name = f'{base.__module__}.{base.__qualname__}'
        kinds = dict(recorded=RECORDED, unrecorded=UNRECORDED, turning=TURNING)
        for kind, names in kinds.items():
            if name in names:
                return kind
    return None


def _steps(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every transform in a pipeline, those inside of others included."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _steps(part, seen)
    elif isinstance(value, dict):
        yield from _steps(list(value.values()), seen)
    elif callable(getattr(value, 'transform', None)):
        yield value
        yield from _steps(list(vars(value).values()), seen)
    elif isinstance(getattr(value, 'transforms', None), list):
        yield from _steps(value.transforms, seen)  # mmengine's Compose
