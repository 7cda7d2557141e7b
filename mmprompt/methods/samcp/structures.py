"""What goes between the parts of SAM-CP; the paper's letters are kept in the docstrings.

Notation: B images, N patches (the most of the batch, at least 1, the rest is padding), C classes,
S semantic queries, T thing classes, M queries of all kinds, R denoising queries, L decoder layers,
D channels. Boxes are xyxy; "normalised" means divided by width and height of the image itself,
without any padding. Index tensors are int64.

Padding is the business of whoever makes a tensor: it carries `PADDED` in logits, zeros elsewhere,
and ``valid`` says where. Nobody else lets it into a sum.
"""

from dataclasses import dataclass

from torch import Tensor

#: The logit of what is not there: a probability of exactly 0, in half precision too.
PADDED = -1e4


@dataclass
class PatchFeatures:
    """Patches of a batch as the decoder reads them: keys, values and instance queries.

    Attributes:
        content: (B, N, D), f in the paper (Sec. 3.2.1).
        position: (B, N, D), embedding of the boxes.
        boxes: (B, N, 4) normalised.
        valid: (B, N) bool, False for padding.
    """

    content: Tensor
    position: Tensor
    boxes: Tensor
    valid: Tensor


@dataclass
class DecoderOutput:
    """What one decoder layer leaves.

    Attributes:
        queries: (B, M, D) for the classifier.
        affinity_logits: (B, M, N), the refined affinity before the sigmoid (Algorithm 1); that of
            padded patches means nothing.
        boxes: (B, M, 4) normalised, around all patches of high affinity; without gradient.
    """

    queries: Tensor
    affinity_logits: Tensor
    boxes: Tensor


@dataclass
class DenoisingOutput:
    """Answers of the denoising queries, which are made from true instances.

    Attributes:
        logits: (L, B, R, T) of the thing classes.
        affinity: (L, B, R, N) logits.
        units: (B, R) which row of the image's ``gt_units`` a query was made from; 0 in padding.
        positive: (B, R) bool: True for a query that shall find its unit again, False for one whose
            box was moved so far that it shall say "nothing" (contrastive denoising).
        valid: (B, R) bool, False for padding.
    """

    logits: Tensor
    affinity: Tensor
    units: Tensor
    positive: Tensor
    valid: Tensor


@dataclass
class SAMCPOutput:
    """All that the losses and the predictions read; layers first, the last layer is the answer.

    Attributes:
        semantic_logits: (L, B, S), of each semantic query the logit of its own class.
        instance_logits: (L, B, N, T) of the thing classes, columns as in ``thing_classes``.
        affinity_semantic: (L, B, S, N) logits, rows as in ``semantic_classes``.
        affinity_instance: (L, B, N, N) logits; row n is the query that patch n became.
        boxes_instance: (L, B, N, 4) normalised, around the patches of high affinity; no gradient.
        semantic_classes: (S,) class of each semantic query: all C, or the stuff classes.
        thing_classes: (T,) class of each column of ``instance_logits``.
        valid: (B, N) bool: patches, and so instance queries, that are there.
        boxes: (B, N, 4) normalised boxes of the patches.
        denoising: of a training step with true instances, or None.
    """

    semantic_logits: Tensor
    instance_logits: Tensor
    affinity_semantic: Tensor
    affinity_instance: Tensor
    boxes_instance: Tensor
    semantic_classes: Tensor
    thing_classes: Tensor
    valid: Tensor
    boxes: Tensor
    denoising: DenoisingOutput | None = None
