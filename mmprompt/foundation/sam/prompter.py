"""Models of the SAM family as one thing: an image is looked at once and then asked about points.

Notation: n points, M masks of a point, k of all n * M masks, (H, W) pixels of the image, S the side
of the square that the model sees, (g, g) the grid of its answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmprompt.foundation.sam.folded import folded
from mmprompt.foundation.sam.mask_decoder import SAMMaskDecoder
from mmprompt.foundation.sam.prompt_encoder import FOREGROUND
from mmprompt.foundation.sam.sam import SAM

# Of ImageNet, in the order of RGB and of 0 to 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Seen:
    """An image as a model remembers it."""

    size: tuple[int, int]  # (H, W)
    inside: tuple[int, int]  # (rows, columns) of the S x S square that show the image
    side: int  # S
    features: Any  # of the model
    stretched: bool = False  # the whole square shows the image, whatever its shape


class Answers(Protocol):
    """What a model says to n points."""

    quality: Tensor  # (n, M) predicted IoU

    def draw(self, index: Tensor) -> Tensor:
        """Logits (k, g, g) over the square, of the masks `index` (k,) of n * M."""


class Prompter(Protocol):
    """A model that can be asked about points."""

    device: torch.device

    def see(self, image: np.ndarray) -> Seen:
        """Look at RGB (H, W, 3) uint8."""

    def ask(self, seen: Seen, points: Tensor) -> Answers:
        """Ask about points (n, 2), shares (x, y) of the image."""


def square_input(image: np.ndarray, side: int, stretch: bool = False) -> tuple[Tensor, tuple]:
    """The square that a SAM sees: the image enlarged to its long side, zeros right and below.

    Args:
        image: RGB (H, W, 3) uint8.
        side: S.
        stretch: fill the square, as SAM 2 does, whatever the shape of the image.

    Returns:
        Normalised (1, 3, S, S) on the CPU, and the (rows, columns) that show the image.
    """
    size = image.shape[:2]
    scale = side / max(size)
    inside = (side, side) if stretch else tuple(max(1, int(s * scale + 0.5)) for s in size)
    resized = Image.fromarray(image).resize(inside[::-1], Image.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()  # (3, rows, columns)
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return F.pad(pixels, (0, side - inside[1], 0, side - inside[0]))[None], inside


def in_square(points: Tensor, seen: Seen) -> Tensor:
    """Shares of the image (n, 2) -> pixels (x, y) of the square."""
    rows, columns = seen.inside
    return points * points.new_tensor([columns, rows])


def enlarge(logits: Tensor, seen: Seen) -> Tensor:
    """Logits (k, g, g) over the square -> (k, H, W) over the image, bilinear as published.

    SAM's are first brought to the square's own resolution and cut there; what lies outside of the
    image is not computed. SAM 2, whose square is the image, enlarges at once.
    """
    if not seen.stretched:
        step, (rows, columns) = seen.side // logits.shape[-1], seen.inside
        # One line of the grid more than needed: the last pixels are mixed with it.
        kept = [min(logits.shape[-1], -(-n // step) + 1) for n in (rows, columns)]
        logits = _resized(logits[:, : kept[0], : kept[1]], (kept[0] * step, kept[1] * step))
        logits = logits[:, :rows, :columns]
    return _resized(logits, seen.size)


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[:, None], size, mode='bilinear', align_corners=False)[:, 0]


class SAMPrompter:
    """Our `SAM`, MobileSAM's by default.

    Args:
        model: with weights, in evaluation mode, on its device.
        side: S, a multiple of 16; the published one is 1024.
        dtype: `torch.bfloat16` computes the model in it by autocast; logits stay float32.
    """

    def __init__(self, model: SAM, side: int = 1024, dtype: torch.dtype | None = None) -> None:
        self.model, self.side, self.dtype = model, side, dtype
        self.device = next(model.parameters()).device

    def _autocast(self):
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def _encoded(self, pixels: Tensor) -> Tensor:
        try:
            with self._autocast():
                return self.model.encode(pixels)
        except RuntimeError:  # autocast of torch 2.1 leaves out attention with a bias, on a CPU
            if self.dtype is None:
                raise
            return self.model.encode(pixels)

    @torch.inference_mode()
    def see(self, image: np.ndarray) -> Seen:
        """Look at RGB (H, W, 3) uint8."""
        pixels, inside = square_input(image, self.side)
        embedding = self._encoded(pixels.to(self.device))[0]  # (D, h, w)
        dense = self.model.prompt_encoder.dense()[0]
        cells = (embedding + dense).flatten(1).t()[None].contiguous()  # (1, L, D)
        places = self.model.prompt_encoder.cells(embedding.shape[-2:])
        features = (cells, places.flatten(1).t()[None].contiguous(), embedding.shape[-2:])
        return Seen(image.shape[:2], inside, self.side, features)

    @torch.inference_mode()
    def ask(self, seen: Seen, points: Tensor) -> Answers:
        """Ask about points (n, 2), shares (x, y) of the image."""
        cells, places, grid = seen.features
        # Published: a point is the middle of its pixel.
        shares = ((in_square(points.to(self.device), seen) + 0.5) / self.side)[:, None]
        labels = torch.full(shares.shape[:-1], FOREGROUND, device=self.device)
        encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        tokens = encoder.closed(encoder.points(shares, labels))  # (n, 2, D)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1)  # (n, 1+M+1+2, D)
        with self._autocast():
            tokens, cells = folded(decoder.transformer, tokens, cells, places)
            return _SAMAnswers(decoder, tokens, cells, grid, self._autocast)


class _SAMAnswers:
    """Masks are drawn for those points only that have one of use."""

    def __init__(
        self,
        decoder: SAMMaskDecoder,
        tokens: Tensor,
        cells: Tensor,
        grid: tuple[int, int],
        autocast: Callable,
    ) -> None:
        self._decoder, self._tokens, self._cells = decoder, tokens, cells
        self._grid, self._autocast = grid, autocast
        # The first mask is for prompts without ambiguity, which one point never is.
        self.quality = decoder.iou_prediction_head(tokens[:, 0])[:, 1:].float()

    @torch.inference_mode()
    def draw(self, index: Tensor) -> Tensor:
        """Logits (k, g, g) over the square, of the masks `index` (k,) of n * M."""
        masks = self.quality.shape[1]
        points, place = (index // masks).unique(return_inverse=True)
        with self._autocast():
            tokens = self._tokens[points, 2 : 2 + masks]  # (p, M, D)
            mlps = self._decoder.output_hypernetworks_mlps[1:]
            vectors = torch.stack([mlp(x) for mlp, x in zip(mlps, tokens.unbind(1))], dim=1)
            logits = self._decoder.draw(self._cells[points], vectors, self._grid)
        return logits[place, index % masks].float()
