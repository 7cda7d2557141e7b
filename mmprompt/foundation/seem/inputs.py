"""What a user hands to `SEEM.segment`, checked and brought into the frame of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import STRIDE
from mmprompt.foundation.seem.features import Strokes
from mmprompt.foundation.seem.hints import as_strokes

Size = tuple[int, int]
Picture = Tensor | np.ndarray | Image.Image
LONGEST = 8  # the longer side is never resized to more than this many times `short_side`
WANTED = (
    'expected RGB values from 0 to 255, a tensor (3, H, W), an array (H, W, 3) or a PIL image of '
    'mode RGB'
)
#: Task -> names of its thresholds.
THRESHOLDS = {
    'semantic': (),
    'panoptic': tuple(signature(mask_merge.panoptic).parameters)[3:],
    'instance': ('top_k',),
    'stroke': (),
}


def check_task(task: str, strokes: Sequence) -> None:
    """Refuse an unknown task, and that of strokes without strokes for every image."""
    if task not in THRESHOLDS:
        raise UserError(f'SEEM.segment: task must be one of {list(THRESHOLDS)}, found {task!r}.')
    if task == 'stroke' and any(hint is None for hint in strokes):
        raise UserError("SEEM.segment: task 'stroke' needs strokes for every image.")


def read_image(rgb: Picture) -> Tensor:
    """RGB values 0-255 as a tensor (3, H, W).

    Raises:
        UserError: it is no such image: grey, with transparency, batched, empty, of another type of
            values, out of range or not finite.
    """
    if isinstance(rgb, Image.Image):
        if rgb.mode != 'RGB':
            _refuse(f'a PIL image of mode {rgb.mode}', "Convert it: image.convert('RGB')")
        rgb = np.array(rgb)
    if isinstance(rgb, np.ndarray):
        if rgb.dtype.kind not in 'uif':
            _refuse(f'an array of {rgb.dtype}', 'Give uint8')
        if rgb.ndim != 3 or rgb.shape[2] != 3:
            _refuse(f'an array of shape {rgb.shape}', _channels(rgb.shape, 'array'))
        if rgb.dtype != np.uint8:  # torch knows neither uint16 nor foreign byte orders
            rgb = rgb.astype(np.float64 if rgb.dtype.kind == 'f' else np.int64)
        rgb = torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order='C'))
    elif not isinstance(rgb, Tensor):
        _refuse(f'{type(rgb).__name__}', 'Read the image first, e.g. with PIL.Image.open')
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        _refuse(f'a tensor of shape {tuple(rgb.shape)}', _channels(rgb.shape, 'tensor'))
    if rgb.dtype == torch.bool or rgb.is_complex():
        _refuse(f'a tensor of {rgb.dtype}', 'Give torch.uint8')
    if not rgb.numel():
        _refuse(f'an image without pixels, {tuple(rgb.shape)}', 'Give one of at least 1 x 1')
    _check_values(rgb)
    return rgb


def _check_values(rgb: Tensor) -> None:
    if rgb.dtype == torch.uint8:
        return
    low, high = (float(v) for v in torch.aminmax(rgb.float()))
    if not np.isfinite(low + high):
        _refuse('values that are not finite', 'Mend or replace them')
    if low < 0 or high > 255:
        _refuse(f'values from {low:g} to {high:g}', 'Give the image before any normalisation')
    if rgb.is_floating_point() and 0 < high <= 1:
        _refuse(f'values from {low:g} to {high:g}', 'Multiply them by 255')


def _channels(shape: Sequence[int], kind: str) -> str:
    first, last = ('first', 'last') if kind == 'tensor' else ('last', 'first')
    if len(shape) == 4:
        return 'For several images give a list of them'
    if len(shape) == 3 and shape[-1 if first == 'first' else 0] == 3:
        return f'The {kind} has its channels {last}; move them to the {first} place'
    if len(shape) == 3 and 4 in (shape[0], shape[-1]):
        return 'Drop the transparency, e.g. with PIL: image.convert("RGB")'
    return 'Repeat a grey channel three times, e.g. with PIL: image.convert("RGB")'


def _refuse(found: str, mend: str) -> None:
    raise UserError(f'SEEM.segment: {WANTED}; found {found}. {mend}.')


def resized_size(size: Size, short_side: int | None) -> Size:
    """(H, W) at which the network sees an image of `size`.

    The shorter side gets `short_side` pixels and the other follows, up to `LONGEST` times that; of
    a longer image the longer side gets that many, and the shorter one what follows, at least 1.
    """
    if short_side is None:
        return tuple(size)
    if isinstance(short_side, bool) or not isinstance(short_side, int) or short_side < 1:
        raise UserError(
            f'SEEM.segment: short_side must be a number of pixels from 1 up, or None, found '
            f'{short_side!r}.'
        )
    scale = min(short_side / min(size), LONGEST * short_side / max(size))
    return tuple(max(1, round(side * scale)) for side in size)


def resize_image(rgb: Tensor, size: Size) -> Tensor:
    """(3, H, W) values 0-255 -> at `size`, bicubic with antialiasing, kept in 0-255."""
    if tuple(rgb.shape[1:]) == tuple(size):
        return rgb
    # Contiguous: interpolate misreads images of one column whose channels lie last in memory.
    rgb = (rgb if rgb.is_floating_point() else rgb.float())[None].contiguous()
    rgb = F.interpolate(rgb, size=size, mode='bicubic', align_corners=False, antialias=True)
    return rgb[0].clamp(0, 255)


def place_strokes(strokes: Strokes | Tensor | None, image: Tensor, resized: Size) -> Strokes | None:
    """Strokes of one image in the padded frame of the network; None for none.

    Args:
        strokes: masks (H, W) or (1, H, W), drawn on the image as the user gave it, or at the padded
            size of the resized image; where these are equal, the former is meant.
        image: (3, H, W) as given.
        resized: (h, w) at which the network sees it.

    A pixel of the network is drawn on if any pixel under it is, so that no thin stroke is lost.

    Raises:
        UserError: masks of another size, or nothing drawn.
    """
    if strokes is None:
        return None
    strokes = as_strokes(strokes)
    placed = {
        name: _place(getattr(strokes, name), name, tuple(image.shape[1:]), tuple(resized))
        for name in ('positive', 'negative')
    }
    return replace(strokes, **placed)


def _place(mask: Tensor | None, name: str, size: Size, resized: Size) -> Tensor | None:
    if mask is None:
        return None
    frame = tuple(side + -side % STRIDE for side in resized)
    mask = torch.as_tensor(mask)
    found = tuple(mask.shape)
    mask = mask if mask.ndim == 3 else mask[None]
    if len(mask) != 1 or tuple(mask.shape[1:]) not in (size, frame):
        raise UserError(
            f'SEEM.segment: strokes.{name} must be one mask at the size of the image, {size}, or '
            f'at the padded size of the resized one, {frame}; found {found}.'
        )
    drawn = mask != 0
    if name == 'positive' and not drawn.any():
        raise UserError(
            'SEEM.segment: strokes.positive is empty; draw on the object that is meant.'
        )
    if tuple(mask.shape[1:]) == size:
        if size != resized:
            drawn = F.adaptive_max_pool2d(drawn[None].float(), resized)[0] > 0
        drawn = F.pad(drawn, (0, frame[1] - resized[1], 0, frame[0] - resized[0]))
    return drawn


def one_each(strokes, count: int) -> list:
    """A list of strokes for `count` images.

    Raises:
        UserError: not as many strokes as images.
    """
    if strokes is None:
        return [None] * count
    if not isinstance(strokes, (list, tuple)) or len(strokes) != count:
        found = len(strokes) if isinstance(strokes, (list, tuple)) else type(strokes).__name__
        raise UserError(
            f'SEEM.segment: for a list of {count} images strokes must be a list of as many, None '
            f'for those without; found {found}.'
        )
    return list(strokes)


def stack_strokes(strokes: Sequence[Strokes | None], device: torch.device) -> Strokes | None:
    """Strokes of single images that have the same parts -> of their batch, on `device`."""
    if strokes[0] is None:
        return None
    parts = {}
    for name in ('positive', 'negative', 'previous'):
        found = [getattr(hint, name) for hint in strokes]
        parts[name] = None if found[0] is None else torch.cat(found).to(device)
    return Strokes(**parts)


def check_size(size: Sequence[int]) -> Size:
    """(H, W) of an answer.

    Raises:
        UserError: not two positive numbers.
    """
    try:
        height, width = (int(side) for side in size)
        right = height == size[0] and width == size[1] and min(height, width) > 0
    except (TypeError, ValueError):
        right = False
    if not right:
        raise UserError(
            f'SEEM.segment: output_size must be (height, width) in pixels, found {size!r}.'
        )
    return height, width


def read_classes(classes) -> Tensor | Sequence[str | Sequence[str]]:
    """Class embeddings as a tensor, names as a list; arrays of either are taken.

    Raises:
        UserError: an array of anything else.
    """
    if not isinstance(classes, np.ndarray):
        return classes
    if classes.dtype.kind == 'f':
        # torch knows neither long doubles nor foreign byte orders
        kind = np.float32 if classes.dtype.itemsize <= 4 else np.float64
        return torch.from_numpy(classes.astype(kind))
    names = classes.tolist()
    if classes.ndim != 1 or not all(isinstance(name, (str, list, tuple)) for name in names):
        raise UserError(
            f'SEEM.segment: classes must be a list of names, or embeddings (C+1, D) in floating '
            f'point; found an array of {classes.dtype} of shape {classes.shape}.'
        )
    return names


def check_classes(embeddings: Tensor, width: int) -> Tensor:
    """Class embeddings (C+1, D) as they are.

    Raises:
        UserError: another shape, or values that are not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != width or len(embeddings) < 2:
        raise UserError(
            f'SEEM.segment: expected class embeddings (C+1, {width}), no-object row last, found '
            f'{tuple(embeddings.shape)}. Make them with the text encoder of this SEEM.'
        )
    if not torch.isfinite(embeddings).all():
        raise UserError('SEEM.segment: expected finite class embeddings, found others.')
    return embeddings


def check_names(classes: Sequence[str | Sequence[str]]) -> None:
    """Refuse no names at all, and a string where a list of names is meant."""
    if isinstance(classes, str) or not len(classes):
        raise UserError(
            f'SEEM.segment: classes must be a list of names, or embeddings (C+1, D); found '
            f"{classes!r}. Give e.g. classes=['road', 'car']."
        )


def check_options(
    task: str, things: Sequence[int], thresholds: Mapping[str, float], num_classes: int
) -> tuple[int, ...]:
    """The indices of things, as numbers.

    Raises:
        UserError: an index that is no class, a threshold that the task does not have, or one out of
            range.
    """
    things = things.tolist() if isinstance(things, (Tensor, np.ndarray)) else things
    for index in things:
        if not isinstance(index, (int, np.integer)) or not 0 <= index < num_classes:
            raise UserError(
                f'SEEM.segment: things must hold class indices from 0 to {num_classes - 1}, found '
                f'{index!r}.'
            )
    for name, value in thresholds.items():
        if name not in THRESHOLDS[task]:
            raise UserError(
                f'SEEM.segment: task {task!r} takes the thresholds {list(THRESHOLDS[task])}, found '
                f'{name!r}.'
            )
        if name == 'top_k' and (not isinstance(value, int) or value < 1):
            raise UserError(f'SEEM.segment: top_k must be a number from 1 up, found {value!r}.')
        if name != 'top_k' and not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise UserError(f'SEEM.segment: {name} must lie in 0 to 1, found {value!r}.')
    return tuple(int(index) for index in things)
