"""What a training step of SAM-CP must keep for its gradient, counted on paper.

Only what the operations of one image keep, once each, in float32: no weights, no gradients, nothing
that lives for a moment. docs/benchmarks.md has the formulas.
"""

from dataclasses import dataclass


@dataclass
class Step:
    """The sizes of a training step of one image.

    Attributes:
        height, width: of the input, padded to a multiple of 32.
        patches: N.
        classes: C, each with a semantic query.
        things: T.
        denoising: R.
        boxes: U, different merged boxes of a layer, at most M = R + C + N.
        units: K, instances.
        dim, ffn, heads, layers, hidden, cells: D, F, eta, the layers of encoder and decoder each,
            the width of the MLP behind RoIAlign and its 7 x 7 cells.
        recomputed: whether similarities of pairs are made again for their gradient.
    """

    height: int
    width: int
    patches: int
    classes: int
    things: int
    denoising: int
    boxes: int
    units: int
    dim: int = 256
    ffn: int = 2048
    heads: int = 8
    layers: int = 6
    hidden: int = 1024
    cells: int = 49
    recomputed: bool = True

    @property
    def queries(self) -> int:
        """M."""
        return self.denoising + self.classes + self.patches


def backbone(step: Step) -> float:
    """Floats of ResNet-50 without gradients for BatchNorm: each convolution's and ReLU's result."""
    kept = 2 * 64 / 4 + 3 * 64 / 16  # the stem; its pooling keeps places of 8 bytes
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width, cell = 64 * 2**stage, 16 * 4**stage  # pixels of a cell of this stage
        first = 2 * width / (cell if stage == 0 else cell / 4)
        kept += first + (2 * 5 * width + 4 * width) / cell  # with the projection of the identity
        kept += (blocks - 1) * 2 * 6 * width / cell
    return kept * step.height * step.width


def neck(step: Step) -> float:
    """Floats of an FPN with GroupNorm: two convolutions' results and the sum between them."""
    cells = sum(step.height * step.width / stride**2 for stride in (4, 8, 16, 32))
    return 3 * step.dim * cells


def encoder(step: Step) -> float:
    """Floats of the patch encoder."""
    n, d = step.patches, step.dim
    read = n * (step.cells * d + step.hidden + 2 * d)
    return read + step.layers * n * (9 * d + step.ffn + step.heads)


def decoder(step: Step) -> float:
    """Floats of the affinity decoder: those of queries, of patches, of boxes and of pairs."""
    m, n, d = step.queries, step.patches, step.dim
    rows = m * (23 * d + step.ffn + 2 * step.heads) + n * 4 * d
    read = step.boxes * (step.cells * d + step.hidden + 2 * d)
    pairs = m * m + (2 + (0 if step.recomputed else 3 * step.heads)) * m * n
    return step.layers * (rows + read + pairs)


def losses(step: Step) -> float:
    """Floats of the losses, which keep ten tables of each affinity and eight of each class."""
    affinities = (step.queries + step.units) * step.patches
    classes = (step.patches + step.denoising) * step.things
    return step.layers * (10 * affinities + 8 * classes)


def activations(step: Step, frozen: bool) -> dict[str, float]:
    """MB by part; a frozen backbone keeps nothing but its four maps."""
    maps = step.height * step.width * sum(256 * 2**i / (16 * 4**i) for i in range(4))
    floats = dict(
        backbone=maps if frozen else backbone(step),
        neck=neck(step),
        encoder=encoder(step),
        decoder=decoder(step),
        losses=losses(step),
    )
    return {name: 4 * count / 1e6 for name, count in floats.items()}
