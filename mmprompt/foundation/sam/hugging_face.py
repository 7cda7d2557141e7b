"""SAM and SAM 2 of the transformers library, as prompters. The library is optional.

Notation: n points, M masks of a point, k of all n * M masks, S the side of the square that the
model sees, (g, g) the grid of its answers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.foundation.sam.prompter import Answers, Seen, in_square, square_input

INSTALL = 'pip install "transformers>=4.56"'


def load_transformers(kind: str, weights: str) -> nn.Module:
    """A model of transformers with all of its weights, in evaluation mode, without gradients.

    Args:
        kind: name of the class, 'SamModel' or 'Sam2Model'.
        weights: a name on huggingface.co, fetched once into the library's cache, or a folder.

    Raises:
        UserError: the library or this class of it is missing, the weights cannot be had, or tensors
            are missing in them.
    """
    model_class = _model_class(kind)
    try:
        model, info = model_class.from_pretrained(weights, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f'{weights}: expected a {kind} of transformers, in a folder here or at '
            f'https://huggingface.co/{weights}, found none that can be read: {first} Without a '
            f'network, fetch config.json and model.safetensors from that address elsewhere, put '
            f'them into a folder and give it as --weights.'
        ) from error
    missing = sorted(info['missing_keys']) + sorted(map(str, info['mismatched_keys']))
    if missing:
        raise UserError(
            f'{weights}: expected all weights of a {kind}, found {len(missing)} missing or of '
            f'another shape: {", ".join(missing[:5])}. Give the weights of such a model.'
        )
    return model.eval().requires_grad_(False)


def _model_class(kind: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f'{kind} needs the library transformers, which is not installed. Install it with '
            f'`{INSTALL}`, or take --generator mobile-sam or felzenszwalb, which do without.'
        ) from error
    try:
        return getattr(transformers, kind)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise UserError(
            f'{kind}: expected a release of transformers that has it, found '
            f'{transformers.__version__}. Install a newer one with `{INSTALL}`.'
        ) from error


class _TransformersPrompter:
    """What both have in common."""

    stretch: bool

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.model, self.dtype = model, dtype
        size = model.config.prompt_encoder_config.image_size
        self.side = size if isinstance(size, int) else int(size[0])
        self.device = next(model.parameters()).device

    def _autocast(self):
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @torch.inference_mode()
    def see(self, image: np.ndarray) -> Seen:
        """Look at RGB (H, W, 3) uint8."""
        pixels, inside = square_input(image, self.side, self.stretch)
        with self._autocast():
            features = self.model.get_image_embeddings(pixels.to(self.device))
        return Seen(image.shape[:2], inside, self.side, features, self.stretch)

    @torch.inference_mode()
    def ask(self, seen: Seen, points: Tensor) -> Answers:
        """Ask about points (n, 2), shares (x, y) of the image."""
        places = in_square(points.to(self.device), seen)[None, :, None]  # (1, n, 1, 2)
        with self._autocast():
            answers = self.model(image_embeddings=seen.features, input_points=places)
        return _Drawn(answers.pred_masks[0].float(), answers.iou_scores[0].float())


class SamPrompter(_TransformersPrompter):
    """Transformers' `SamModel`."""

    stretch = False


class Sam2Prompter(_TransformersPrompter):
    """Transformers' `Sam2Model`, whose square is the image whatever its shape."""

    stretch = True


class _Drawn:
    """Masks that are there already: the library gives all at once."""

    def __init__(self, logits: Tensor, quality: Tensor) -> None:
        self._logits = logits.flatten(0, 1)  # (n * M, g, g)
        self.quality = quality

    def draw(self, index: Tensor) -> Tensor:
        """Logits (k, g, g) over the square, of the masks `index` (k,) of n * M."""
        return self._logits[index]
