"""Plain containers that travel between the parts of SEEM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class SEEMFeatures:
    """What the frozen image side gives to the decoder; one image batch, one padded size.

    Attributes:
        multi_scale: three maps (B, D, H/s, W/s) at strides s = 32, 16, 8, coarse to fine.
        mask_features: (B, Dm, H/4, W/4); mask logits are inner products with it.
    """

    multi_scale: list[Tensor]
    mask_features: Tensor

    def to(self, *args, **kwargs) -> SEEMFeatures:
        """Move or cast every map, as `Tensor.to`."""
        maps = [m.to(*args, **kwargs) for m in self.multi_scale]
        return SEEMFeatures(maps, self.mask_features.to(*args, **kwargs))

    def detach(self) -> SEEMFeatures:
        """The same maps without their graph."""
        return SEEMFeatures([m.detach() for m in self.multi_scale], self.mask_features.detach())

    def as_dict(self) -> dict[str, Tensor]:
        """Flat form for caches: keys `ms0`, `ms1`, `ms2`, `mask_features`."""
        out = {f'ms{i}': m for i, m in enumerate(self.multi_scale)}
        out['mask_features'] = self.mask_features
        return out

    @classmethod
    def from_dict(cls, tensors: dict[str, Tensor]) -> SEEMFeatures:
        """Inverse of `as_dict`."""
        count = sum(key.startswith('ms') for key in tensors)
        return cls([tensors[f'ms{i}'] for i in range(count)], tensors['mask_features'])

    @classmethod
    def joined(cls, parts: Sequence[SEEMFeatures]) -> SEEMFeatures:
        """Batches of one size as one batch, whose channels lie last in memory."""
        maps = [_joined(levels) for levels in zip(*(part.multi_scale for part in parts))]
        return cls(maps, _joined([part.mask_features for part in parts]))


def _joined(maps: Sequence[Tensor]) -> Tensor:
    # As the decoder reads them, and as convolutions on a CPU write them, but for the smallest ones.
    return torch.cat([m.permute(0, 2, 3, 1) for m in maps]).permute(0, 3, 1, 2)


@dataclass
class Strokes:
    """A drawn hint for one object per image (decoder v0).

    Attributes:
        positive: (B, H, W) boolean at the padded input size, True where the user drew "this".
        negative: the same for "not this", or None.
        previous: (B, 1, h, w) mask logits of the round before; brings in the memory prompts.
    """

    positive: Tensor
    negative: Tensor | None = None
    previous: Tensor | None = None


@dataclass
class StrokeOutput:
    """The answer to strokes.

    Attributes:
        mask_embed: (B, Q, Dm) mask vectors of the queries that saw the strokes.
        positive: (B, Dm) mean of the mask features under the positive points (0 without points).
        negative: (B, Dm) the same for the negative points.
        mask_features: (B, Dm, h, w), shared with the features.
    """

    mask_embed: Tensor
    positive: Tensor
    negative: Tensor
    mask_features: Tensor

    @property
    def pred_masks(self) -> Tensor:
        """(B, Q, h, w) mask logits of every stroke query."""
        return torch.einsum('bqd,bdhw->bqhw', self.mask_embed, self.mask_features)

    @property
    def best(self) -> Tensor:
        """(B,) index of the query whose mask vector agrees most with the positive points."""
        return torch.einsum('bqd,bd->bq', self.mask_embed, self.positive).argmax(1)

    @property
    def answer(self) -> Tensor:
        """(B, 1, h, w) mask logits of the best query; `Strokes.previous` of the next round."""
        index = self.best[:, None, None].expand(-1, 1, self.mask_embed.shape[2])
        chosen = self.mask_embed.gather(1, index)  # (B, 1, Dm)
        return torch.einsum('bqd,bdhw->bqhw', chosen, self.mask_features)


@dataclass
class SEEMOutput:
    """One prediction of the decoder.

    Mask logits are linear in `mask_embed`, so intermediate predictions keep only that vector;
    `pred_masks` multiplies it out when it is asked for. A loss on sampled points is cheaper on
    ``mask_embed @ sampled mask_features``.

    Attributes:
        pred_logits: (B, Q, C+1) class logits, the no-object class last.
        mask_embed: (B, Q, Dm) mask vectors.
        mask_features: (B, Dm, h, w), stride 4.
        queries: (B, Q, D) normalised queries that the heads read; with `SEEMDecoder.class_logits`
            they give the logits of other class embeddings without decoding again.
        aux: predictions before layer 0 and after each layer but the last, when asked for.
        strokes: the answer to strokes, when strokes were given.
    """

    pred_logits: Tensor
    mask_embed: Tensor
    mask_features: Tensor
    queries: Tensor
    aux: list[SEEMOutput] = field(default_factory=list)
    strokes: StrokeOutput | None = None
    _masks: Tensor | None = field(default=None, repr=False)

    @property
    def pred_masks(self) -> Tensor:
        """(B, Q, h, w) mask logits at stride 4; multiplied out anew unless materialised."""
        if self._masks is not None:
            return self._masks
        return torch.einsum('bqd,bdhw->bqhw', self.mask_embed, self.mask_features)

    def of_image(self, index: int) -> SEEMOutput:
        """The prediction of one image, still a batch (of one), without `aux`."""
        part = slice(index, index + 1)
        names = ('mask_embed', 'positive', 'negative', 'mask_features')
        strokes = self.strokes and StrokeOutput(*(getattr(self.strokes, n)[part] for n in names))
        own = (self.pred_logits, self.mask_embed, self.mask_features, self.queries)
        masks = None if self._masks is None else self._masks[part]
        return SEEMOutput(*(value[part] for value in own), strokes=strokes, _masks=masks)

    def materialise(self) -> None:
        """Multiply the mask logits out now and keep them."""
        self._masks = self.pred_masks
