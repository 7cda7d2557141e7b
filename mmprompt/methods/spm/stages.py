"""Where a backbone can be cut: names of its modules, and how their inputs hold a feature map.

Nothing is known about the backbone beforehand. One forward of a small picture shows which modules
run, in which order, and what they are given: a map (B, C, h, w), a channel-last map (B, h, w, C),
or a sequence of tokens (B, n + h w, C) with n tokens (class token, registers) before those of the
picture.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmprompt.common.errors import UserError

#: The place behind the last stage, before the head.
OUT = 'out'
MAP, CHANNEL_LAST, TOKENS = 'map', 'channel-last map', 'tokens'
# Tokens before those of the picture, in the order in which they are tried: none, a class token, a
# class and a distillation token, a class token and four registers.
_PREFIXES = (0, 1, 2, 5)


@dataclass(frozen=True)
class Layout:
    """How a tensor holds a feature map.

    Attributes:
        kind: 'map', 'channel-last map' or 'tokens'.
        channels: C.
        prefix: tokens before those of the picture.
        strides: pixels per token, down and across, as seen on the probe; used where nothing else
            tells the height and width of a sequence.
    """

    kind: str
    channels: int
    prefix: int = 0
    strides: tuple[float, float] = (1, 1)

    def to_map(self, value: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the feature map (B, C, h, w); `grid` is (h, w) of a sequence."""
        if self.kind == MAP:
            return value
        if self.kind == CHANNEL_LAST:
            return value.permute(0, 3, 1, 2)
        tokens = value[:, self.prefix :]  # (B, h w, C)
        return tokens.transpose(1, 2).unflatten(2, grid)

    def add(self, value: Tensor, prompt: Tensor) -> Tensor:
        """Add a prompt (B, C, h, w) to the picture's part of `value` (Eq. 2)."""
        if self.kind == MAP:
            return value + prompt
        if self.kind == CHANNEL_LAST:
            return value + prompt.permute(0, 2, 3, 1)
        prompt = prompt.flatten(2).transpose(1, 2)  # (B, h w, C)
        if not self.prefix:
            return value + prompt
        return torch.cat([value[:, : self.prefix], value[:, self.prefix :] + prompt], dim=1)

    def grid(self, value: Tensor, others: Sequence[Any], image: tuple[int, int]) -> Any:
        """Height and width of the map that a sequence holds; None for maps.

        Args:
            value: the tensor itself.
            others: further arguments of its module; a pair (h, w) among them decides.
            image: height and width of the backbone's input.

        Raises:
            UserError: the length fits no height and width.
        """
        if self.kind != TOKENS:
            return None
        length = value.shape[1] - self.prefix
        for pair in others:
            if _is_pair(pair) and pair[0] * pair[1] == length:
                return int(pair[0]), int(pair[1])
        for rounded in (math.ceil, math.floor, round):
            h, w = (rounded(side / stride) for side, stride in zip(image, self.strides))
            if h * w == length:
                return h, w
        # Where the patch does not divide the probe's sides, its strides are not the patch's.
        for pair in _grids(length, image):
            if _fits_exactly(pair, image):
                return pair
        raise UserError(
            f'prompt_at: expected a sequence of {self.prefix} tokens and one for each '
            f'{self.strides[0]:g} x {self.strides[1]:g} pixels of an input of {image[0]} x '
            f'{image[1]}, found {value.shape[1]} tokens. Give inputs whose sides are multiples of '
            f'the patch size, or set probe_size to the size that the backbone is made for.'
        )


@dataclass
class Visit:
    """What a module was given during the probe."""

    value: Any
    others: tuple
    count: int = 1


def probe(
    backbone: nn.Module, names: Sequence[str], picture: tuple[int, int, int]
) -> dict[str, Layout]:
    """Find out how the inputs of modules hold feature maps.

    Args:
        backbone: run once, in eval mode and without a graph, on a picture of zeros.
        names: modules of the backbone, in the order in which they run, and `OUT` at the end.
        picture: its channels, height and width; unequal sides tell maps from channel-last ones.

    Returns:
        The layout at each name.

    Raises:
        UserError: a name is unknown, repeated or out of order, its module does not run exactly
            once, or is given no feature map.
    """
    size = picture[1:]
    visits, result = _visit(backbone, picture)
    layouts = {n: recognise(v.value, v.others, size, backbone) for n, v in visits.items()}
    possible = [n for n, v in visits.items() if n and layouts[n] and v.count == 1]
    layouts[OUT] = recognise(last_map(result), (), size, backbone)
    for name in names:
        _check_name(name, backbone, visits, layouts, possible)
    order = [*possible, OUT]
    ranked = sorted(names, key=order.index)
    if list(names) != ranked or len(set(names)) != len(names):
        raise UserError(
            f'prompt_at: expected each place once, in the order in which {type(backbone).__name__} '
            f'runs, found {list(names)}. Write {sorted(set(names), key=order.index)}.'
        )
    return {name: layouts[name] for name in names}


def recognise(
    value: Any, others: Sequence[Any], image: tuple[int, int], backbone: nn.Module
) -> Layout | None:
    """Return the layout of a tensor that some module is given for one image, or None."""
    if not isinstance(value, Tensor) or value.dim() not in (3, 4) or len(value) != 1:
        return None  # the windows of a picture are no map of it either
    if value.dim() == 4:
        for fits in (_fits_exactly, _fits_nearly):
            if fits(value.shape[2:], image):
                return Layout(MAP, value.shape[1])
            if fits(value.shape[1:3], image):
                return Layout(CHANNEL_LAST, value.shape[3])
        return None
    length, channels = value.shape[1:]
    prefixes = known_prefix(backbone) or _PREFIXES
    pairs = [tuple(pair) for pair in others if _is_pair(pair)]
    told = [(n, (h, w)) for n in prefixes for h, w in pairs if h * w == length - n]
    guessed = [(n, grid) for n in prefixes for grid in _grids(length - n, image)]
    # Whole patches first: by rounding, many a length is a grid.
    guessed.sort(key=lambda guess: not _fits_exactly(guess[1], image))
    if not told + guessed:
        return None
    prefix, grid = (told + guessed)[0]
    return Layout(TOKENS, channels, prefix, tuple(side / n for side, n in zip(image, grid)))


def last_map(result: Any) -> Any:
    """The tensor of the last level in what a backbone returns.

    A level may be a pair of map and class token.
    """
    while isinstance(result, (tuple, list)) and result:
        is_pair = isinstance(result[-1], Tensor) and result[-1].dim() == 2 and len(result) == 2
        result = result[0 if is_pair else -1]
    return result


def replace_last_map(result: Any, value: Tensor) -> Any:
    """What a backbone returned, of the same types, with another tensor for `last_map`."""
    if not isinstance(result, (tuple, list)):
        return value
    is_pair = isinstance(result[-1], Tensor) and result[-1].dim() == 2 and len(result) == 2
    at = 0 if is_pair else len(result) - 1
    levels = list(result)
    levels[at] = replace_last_map(levels[at], value)
    make = getattr(result, '_make', type(result))  # named tuples take their fields one by one
    return make(levels)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of `module` into eval mode, and back into its own mode afterwards."""
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _visit(backbone: nn.Module, picture: tuple[int, int, int]) -> tuple[dict[str, Visit], Any]:
    """Run the backbone once and note what each of its modules is given, in order."""
    visits: dict[str, Visit] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple) -> None:
            if name in visits:
                visits[name].count += 1
            elif args:
                visits[name] = Visit(_outline(args[0]), args[1:])

        return hook

    handles = [m.register_forward_pre_hook(note(n)) for n, m in backbone.named_modules() if n]
    first = next(iter(backbone.parameters()), torch.empty(0))
    zeros = torch.zeros(1, *picture, device=first.device, dtype=first.dtype)
    try:
        with evaluating(backbone), torch.no_grad():
            result = backbone(zeros)
    except Exception as error:
        raise UserError(
            f'probe_size: {type(backbone).__name__} was tried on an input {tuple(zeros.shape)} '
            f'to see the shapes of its features and failed: {type(error).__name__}: {error}. Set '
            f'probe_size=(height, width) of SPMBackbone to a size that it takes.'
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return visits, result


def _outline(value: Any) -> Any:
    """The shape of a tensor without its content."""
    return torch.empty(value.shape, device='meta') if isinstance(value, Tensor) else None


def _check_name(
    name: str, backbone: nn.Module, visits: dict, layouts: dict, possible: list[str]
) -> None:
    kind = type(backbone).__name__
    known = dict(backbone.named_modules())
    if name != OUT and (name not in known or not name):
        found = 'no such module'
    elif name != OUT and name not in visits:
        found = 'a module that does not run by itself, or is given no positional argument'
    elif name != OUT and visits[name].count > 1:
        found = f'a module that runs {visits[name].count} times'
    elif layouts[name] is None:
        found = 'an input that is no feature map'
    else:
        return
    raise UserError(
        f'prompt_at: expected names of modules of {kind} that run once on a feature map, found '
        f'{name!r}: {found}. Possible: {_short(possible)} and {OUT!r}.'
    )


def _short(names: list[str], limit: int = 60) -> str:
    """The names of fewest dots, so many that they can be read."""
    depth = 0
    chosen: list[str] = []
    while len(chosen) < len(names):
        deeper = [n for n in names if n.count('.') <= depth]
        if chosen and len(deeper) > limit:
            return ', '.join(chosen) + ' (and modules inside these)'
        chosen, depth = deeper, depth + 1
    return ', '.join(chosen)


def _is_pair(value: Any) -> bool:
    sizes = (tuple, list, torch.Size)
    return isinstance(value, sizes) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _fits_exactly(grid: Sequence[int], image: tuple[int, int]) -> bool:
    """Tell whether cells of one whole number of pixels make this grid of an image."""
    (h, w), (height, width) = grid, image
    return h > 0 and height % h == 0 and height * w == width * h


def _fits_nearly(grid: Sequence[int], image: tuple[int, int]) -> bool:
    """Tell whether one stride makes this grid of an image, give or take a row and a column."""
    spans = [(n / (g + 1), n / (g - 1) if g > 1 else math.inf) for g, n in zip(grid, image)]
    return max(low for low, _ in spans) < min(high for _, high in spans)


def _grids(length: int, image: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Every (h, w) of `length` cells that one stride, rounded up or down, makes of an image."""
    pairs = [(h, length // h) for h in range(1, length + 1) if length % h == 0]
    yield from (pair for pair in pairs if _fits_exactly(pair, image))
    for h, w in pairs:
        # Rounded up, a stride lies in [n / g, n / (g - 1)); rounded down in (n / (g + 1), n / g].
        for step in (-1, 1):
            spans = [
                sorted((n / g, n / (g + step) if g + step else math.inf))
                for g, n in zip((h, w), image)
            ]
            if max(low for low, _ in spans) < min(high for _, high in spans):
                yield h, w


def known_prefix(backbone: nn.Module) -> tuple[int, ...] | None:
    """Tokens before the picture's by the attribute in which a backbone counts them, if it does."""
    for module in backbone.modules():
        for attribute in ('num_prefix_tokens', 'num_extra_tokens'):
            number = getattr(module, attribute, None)
            if isinstance(number, int):
                return (number,)
        if isinstance(getattr(module, 'with_cls_token', None), bool):
            return (int(module.with_cls_token),)
    return None
