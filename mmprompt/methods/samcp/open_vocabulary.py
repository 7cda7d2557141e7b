"""Open vocabulary: the trained classifier and a frozen CLIP name a merged mask together (Sec. 4.1).

    S_ov = sigmoid(S_cls)^(1 - kappa) * softmax(S_CLIP)^kappa                          `fuse`

S_cls are the logits of the classifier, S_CLIP the similarities of CLIP's view of a mask, which is
the mean of its last map over the pixels of the mask ("mask pooling"), to the texts.

No mask is painted: a mask is a union of atoms (`canvas`), and how many pixels of an atom lie in
which cell of the map is counted once.

Notation as in `structures` and `canvas`; further: E entries of the C classes, which are names (a
class has one or more), K cells of CLIP's map with D_map channels, D' channels of texts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.canvas import Canvas, row_blocks
from mmprompt.methods.samcp.classifier import best_of_entries
from mmprompt.methods.samcp.predict import ImageScores
from mmprompt.registry import TASK_UTILS

#: Pixels that a patch may lie beside where a resize puts it.
TOLERANCE = 0.5


class CLIPImages(Protocol):
    """What a backbone must have beside its maps to name what is in them."""

    #: What cosine similarities are multiplied by before the softmax.
    logit_scale: Tensor | float

    def embed(self, pooled: Tensor) -> Tensor:
        """Vectors (M, D_map) that were pooled from the last map -> unit rows (M, D')."""


@dataclass
class CLIPView:
    """What CLIP sees of one image.

    Attributes:
        map: (D_map, h, w), of the padded input.
        padded: height and width of that.
        size: height and width of the image, in its upper left corner.
    """

    map: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]

    @property
    def cells(self) -> Tensor:
        """(K, D_map), row by row, at least float32."""
        return at_least_float(self.map).flatten(1).t()

    def cell_of_pixels(self, original: tuple[int, int]) -> Tensor:
        """In which cell the centre of each pixel of the original image lies, (H, W) int64.

        Args:
            original: H and W, of which the image was resized to `size`.
        """
        rows, columns = (
            # floor((i + 1/2) * size / original * cells / padded), in whole numbers
            ((2 * torch.arange(sides[0], device=self.map.device) + 1) * sides[1] * sides[2])
            // (2 * sides[0] * sides[3])
            for sides in zip(original, self.size, self.map.shape[1:], self.padded)
        )
        return rows[:, None] * self.map.shape[2] + columns


def pixels_in_cells(canvas: Canvas, view: CLIPView) -> Tensor:
    """How many pixels of an atom lie in a cell, (A, K) of the type of `view.cells`."""
    cells = view.map.shape[1:].numel()
    pairs = canvas.index * cells + view.cell_of_pixels(tuple(canvas.index.shape))  # (H, W)
    counts = torch.bincount(pairs.flatten(), minlength=len(canvas.areas) * cells)
    return counts.view(len(canvas.areas), cells).to(view.cells.dtype)


def mask_pooling(union: Tensor, pixels: Tensor, cells: Tensor) -> Tensor:
    """Mean over the pixels of a mask of the vector of the cell in which a pixel lies.

    Args:
        union: (R, A) bool, the atoms of each mask.
        pixels: (A, K), of `pixels_in_cells`.
        cells: (K, D_map).

    Returns:
        (R, D_map); 0 for an empty mask.
    """
    weights = union.to(pixels) @ pixels  # (R, K)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1) @ cells


def clip_scores(image: Tensor, entries: Tensor, class_of: Tensor, scale: Tensor | float) -> Tensor:
    """softmax(S_CLIP): the classes among which CLIP chooses, a class by its best entry.

    Args:
        image: (R, D') unit rows.
        entries: (E, D') unit rows.
        class_of: (E,).
        scale: of the similarities.

    Returns:
        (R, C).

    Raises:
        UserError: the texts are of another CLIP.
    """
    if image.shape[1] != entries.shape[1]:
        raise UserError(
            f'model.open_vocabulary: expected embeddings of the class names by the CLIP that is '
            f'the backbone, {image.shape[1]} numbers each, found {entries.shape[1]}. Give '
            f'model.head.text the same CLIP.'
        )
    return best_of_entries(scale * image @ entries.t(), class_of).softmax(dim=-1)


def fuse(
    learned: Tensor, clip: Tensor, kappa: Tensor | float, combine: str = 'geometric'
) -> Tensor:
    """S_ov.

    Args:
        learned: sigmoid(S_cls).
        clip: softmax(S_CLIP) of the same queries and classes.
        kappa: of each class, or of all.
        combine: 'geometric': the weighted geometric mean, at kappa 0 the learned score and at 1
            CLIP's; 'sum': half of the sum that is printed, which ranks as the sum does and lies in
            [0, 1], as the thresholds expect. Since x^0 = 1, it is at least 1/2 at kappa 0 and 1,
            where a lower threshold lets everything pass.
    """
    learned, clip = learned ** (1 - kappa), clip**kappa
    return (learned + clip) / 2 if combine == 'sum' else learned * clip


@TASK_UTILS.register_module()
class OpenVocabularyScores:
    """Scores of an image's queries by the classifier and by what CLIP sees in their masks.

    A query whose mask has no pixel keeps its learned score.

    Args:
        kappa: share of CLIP in the exponents.
        kappa_unseen: that for classes without which the weights were trained; None: the same.
        combine: see `fuse`; 'geometric' is the average of which Table 8 speaks.
        temperature: what similarities are divided by; None: what CLIP was trained with.

    Raises:
        ValueError: a kappa out of [0, 1], a temperature of 0 or less, or another word.
    """

    def __init__(
        self,
        kappa: float = 0.4,
        kappa_unseen: float | None = None,
        combine: Literal['geometric', 'sum'] = 'geometric',
        temperature: float | None = None,
    ) -> None:
        for name, value in (('kappa', kappa), ('kappa_unseen', kappa_unseen)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(
                    f'open_vocabulary.{name}: expected a number in [0, 1], found {value}.'
                )
        if combine not in ('geometric', 'sum'):
            raise ValueError(
                f"open_vocabulary.combine: expected 'geometric' or 'sum', found {combine!r}."
            )
        if temperature is not None and temperature <= 0:
            raise ValueError(
                f'open_vocabulary.temperature: expected a positive number, found {temperature}.'
            )
        self.kappa, self.combine, self.temperature = kappa, combine, temperature
        self.kappa_unseen = kappa if kappa_unseen is None else kappa_unseen

    @property
    def tells_unseen_apart(self) -> bool:
        """Whether it matters which classes the weights were trained with."""
        return self.kappa_unseen != self.kappa

    def __call__(
        self,
        scores: ImageScores,
        canvas: Canvas,
        merged: Callable[[Tensor], Tensor],
        view: CLIPView,
        clip: CLIPImages,
        texts: tuple[Tensor, Tensor],
        seen: Tensor,
    ) -> ImageScores:
        """S_ov in the place of the learned scores.

        Args:
            scores: of one image.
            canvas: its patches.
            merged: affinity logits (R, N) -> (R, N) bool, the patches that a query merges.
            view: the image as CLIP sees it.
            clip: who sees it.
            texts: entries (E, D') and the class of each (E,).
            seen: (C,) bool, the classes with which the weights were trained.
        """
        pixels, cells = pixels_in_cells(canvas, view), view.cells
        kappa = scores.semantic.new_full(seen.shape, self.kappa_unseen)  # (C,)
        kappa = kappa.masked_fill(seen, self.kappa)
        scale = clip.logit_scale if self.temperature is None else 1 / self.temperature

        def fused(learned: Tensor, affinity: Tensor, classes: Tensor) -> Tensor:
            """(R, J) scores of queries, each for J classes."""
            found = torch.empty_like(learned)
            for rows in row_blocks(len(learned), max(pixels.shape[0], len(texts[1]))):
                union = canvas.union(merged(affinity[rows]))  # (., A)
                image = clip.embed(mask_pooling(union, pixels, cells))
                named = clip_scores(image, *texts, scale).to(learned).gather(1, classes[rows])
                best = fuse(learned[rows], named, kappa[classes[rows]], self.combine)
                found[rows] = torch.where(union.any(dim=1, keepdim=True), best, learned[rows])
            return found

        own = scores.semantic_classes[:, None]
        every = scores.thing_classes.expand(len(scores.instance), -1)
        return replace(
            scores,
            semantic=fused(scores.semantic[:, None], scores.affinity_semantic, own)[:, 0],
            instance=fused(scores.instance, scores.affinity_instance, every),
        )


def check_view(sample, view: CLIPView) -> None:
    """See that an input is its original image, resized, by where its patches lie.

    Args:
        sample: with ``patch_set``, and ``patches`` with ``bboxes`` and ``ids``.
        view: of its input.

    Raises:
        UserError: a patch lies elsewhere, so the image was also flipped or cut.
    """
    height, width = sample.patch_set.size
    scale = torch.tensor([view.size[1] / width, view.size[0] / height]).repeat(2)
    stored = torch.from_numpy(sample.patch_set.boxes)[sample.patches.ids.cpu()]
    away = (stored * scale - sample.patches.bboxes.cpu()).abs().amax(dim=1)
    if (away > TOLERANCE).any():
        which = int(away.argmax())
        wanted, found = (
            [round(side, 1) for side in boxes[which].tolist()]
            for boxes in (stored * scale, sample.patches.bboxes)
        )
        raise UserError(
            f'{sample.get("img_path", "an image")}: open_vocabulary expects the whole image, only '
            f'resized, with patch {int(sample.patches.ids[which])} at {wanted}, found it at '
            f'{found}. Take flips and crops out of the test pipeline.'
        )
