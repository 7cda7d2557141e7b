"""SAM with the two prompts, as a decode head: points on a grid, and text rows for its masks.

SAM's masks have no class. Here each point of a grid gives one mask, the image's embedding is
averaged over that mask, and the average is compared with the rows of the semantic prompt.

Notation: B images, N points (one mask each), C classes, (h, w) cells at stride 16, D channels of
SAM, E channels of the text rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmprompt.foundation.sam import point_grid
from mmprompt.foundation.sam.prompt_encoder import FOREGROUND
from mmprompt.foundation.seem.class_names import text_bank_of
from mmprompt.methods.ssprompt.head import SEEMPromptHead, is_trained
from mmprompt.methods.ssprompt.sources import SOURCES
from mmprompt.methods.ssprompt.tasks import SEMANTIC
from mmprompt.registry import MODELS

CENTRES = ('image', None)
MASKS = dict(single=slice(0, 1), best=slice(1, None))


@dataclass
class SAMDecoded:
    """What the masks of a batch are and what is inside them."""

    masks: Tensor  # (B, N, 4h, 4w) logits
    queries: Tensor  # (B, N, D) averages of the image's embedding

    def as_dict(self) -> dict[str, Tensor]:
        """Flat form for caches."""
        return dict(masks=self.masks, queries=self.queries)


@dataclass
class SAMOutput:
    """A prediction under both prompts; the names are those of `SEEMOutput`."""

    pred_logits: Tensor  # (B, N, C+1)
    pred_masks: Tensor  # (B, N, 4h, 4w)
    queries: Tensor  # (B, N, D)
    aux: list = field(default_factory=list)


@MODELS.register_module()
class SAMPointDecoder(BaseModule):
    """Point embeddings -> masks and their class vectors.

    SAM has no map from its features to texts. `class_embed` stands in its place: random, drawn once
    from a seed and never trained, so that nothing about classes is known before prompts are
    learned.

    Args:
        prompt_encoder: config of `SAMPromptEncoder`.
        mask_decoder: config of `SAMMaskDecoder`.
        text_dim: E.
        masks: 'single' is SAM's answer to a prompt that it takes as unambiguous, 'best' the one of
            highest predicted quality among whole, part and sub-part.
        centre: 'image' takes the mean of the image's embedding from the average over a mask: all
            averages of an image share a large part, which says nothing about classes; None does
            not.
        area: (height, width) of the images, of which the long side is 1; where the grid lies.
        chunk: points decoded at once. With fewer than N, training computes each chunk twice in
            exchange for its memory.
        projection_seed: of `class_embed`.
    """

    object_tokens = False

    def __init__(
        self,
        prompt_encoder: dict,
        mask_decoder: dict,
        text_dim: int,
        masks: str = 'single',
        centre: str | None = 'image',
        area: tuple[float, float] = (1.0, 1.0),
        chunk: int = 100,
        projection_seed: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, known in (('masks', masks, tuple(MASKS)), ('centre', centre, CENTRES)):
            if value not in known:
                raise ValueError(f'SAMPointDecoder.{name} must be in {known}, found {value!r}.')
        self.prompt_encoder = MODELS.build(prompt_encoder)
        self.mask_decoder = MODELS.build(mask_decoder)
        self.dim, self.masks, self.centre = self.mask_decoder.dim, masks, centre
        self.area, self.chunk, self.projection_seed = tuple(area), chunk, projection_seed
        self.register_buffer('class_embed', torch.zeros(self.dim, text_dim), persistent=False)
        self.register_buffer('logit_scale', torch.zeros(()), persistent=False)

    @torch.no_grad()
    def align(self, logit_scale: Tensor) -> None:
        """Draw `class_embed`, and take over the temperature (its logarithm) of the text rows."""
        generator = torch.Generator().manual_seed(self.projection_seed)
        drawn = torch.randn(self.class_embed.shape, generator=generator)
        self.class_embed.copy_(drawn / math.sqrt(self.dim))
        self.logit_scale.copy_(logit_scale)

    def point_rows(self, num_points: int) -> Tensor:
        """SAM's own embeddings of a square grid of foreground points, (N, D)."""
        points = point_grid(math.isqrt(num_points), self.area).to(self.class_embed)
        labels = torch.full(points.shape[:1], FOREGROUND, device=points.device)
        return self.prompt_encoder.points(points, labels)

    def forward(self, embeddings: Tensor, rows: Tensor) -> SAMDecoded:
        """Masks of images (B, D, h, w) at points (N, D), and what is inside them."""
        parts = rows.split(self.chunk)
        again = torch.is_grad_enabled() and rows.requires_grad and len(parts) > 1
        images = []
        for embedding in embeddings:
            found = [
                checkpoint(self._decode, embedding, part, use_reentrant=False)
                if again
                else self._decode(embedding, part)
                for part in parts
            ]
            images.append([torch.cat(tensors) for tensors in zip(*found)])
        return SAMDecoded(*(torch.stack(tensors) for tensors in zip(*images)))

    def _decode(self, embedding: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.prompt_encoder
        answer = self.mask_decoder(
            embedding,
            encoder.cells(embedding.shape[-2:]),
            encoder.closed(rows[:, None]),
            encoder.dense(),
            MASKS[self.masks],
        )
        best = answer.quality.argmax(1)
        masks = answer.logits[torch.arange(len(best), device=best.device), best]  # (n, 4h, 4w)
        inside = masks.sigmoid()
        # Half precision has no room for the share of a mask that is nowhere.
        inside = inside.float() if inside.element_size() < 4 else inside
        share = F.avg_pool2d(inside[:, None], 4)[:, 0].flatten(1)  # (n, h * w)
        share = (share / (share.sum(1, keepdim=True) + 1e-6)).to(embedding)
        cells = embedding.flatten(1)  # (D, h * w)
        if self.centre == 'image':
            cells = cells - cells.mean(1, keepdim=True)
        return masks, share @ cells.t()

    def class_logits(self, queries: Tensor, semantic: Tensor) -> Tensor:
        """Cosine with the text rows, scaled: (B, N, D), (C+1, E) -> (B, N, C+1).

        Rows are used as they come, as in SEEM.
        """
        vector = queries @ self.class_embed
        vector = vector / (vector.norm(dim=-1, keepdim=True) + 1e-7)
        return self.logit_scale.exp() * (vector @ semantic.t())


@MODELS.register_module()
class SAMEmbedding(BaseModule):
    """Stands where SEEM has its pixel decoder: SAM's image encoder gives one map, taken as it is.

    Args:
        in_channels: channels of that map.
    """

    def __init__(self, in_channels: Sequence[int] = (256,), init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = list(in_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        return maps


@MODELS.register_module()
class SAMPromptHead(SEEMPromptHead):
    """Frozen prompt encoder and mask decoder of SAM, steered by both prompts.

    The arguments are those of `SEEMPromptHead`. `spatial_prompt.source` is 'points', and the task
    is semantic segmentation.

    Args:
        decoder: config of `SAMPointDecoder`.
        pixel_decoder: config of `SAMEmbedding`.
        **head: the others of `SEEMPromptHead`.
    """

    def __init__(self, decoder: dict, pixel_decoder: dict | None = None, **head) -> None:
        for name, wanted in (('task', SEMANTIC), ('tune', 'prompts')):
            if head.get(name, wanted) != wanted:
                raise ValueError(f'SAMPromptHead.{name} must be {wanted!r}, found {head[name]!r}.')
        pixel_decoder = pixel_decoder or dict(type='mmprompt.SAMEmbedding', in_channels=(256,))
        super().__init__(pixel_decoder=pixel_decoder, decoder=decoder, **head)

    def _check_prompts(self) -> None:
        spatial = self.spatial_prompt
        if spatial.source is not SOURCES['points']:
            raise ValueError(
                f"SAMPromptHead.spatial_prompt.source must be 'points', found "
                f'{spatial.source.__name__}.'
            )
        if math.isqrt(spatial.num_prompts) ** 2 != spatial.num_prompts:
            raise ValueError(
                f'SAMPromptHead.spatial_prompt.num_prompts must be a square number, such as 100, '
                f'found {spatial.num_prompts}.'
            )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # Other frozen weights have other defaults, which are then taken at the next forward.
        kept = self.decoder.prompt_encoder.not_a_point_embed.weight
        given = state_dict.get(prefix + 'decoder.prompt_encoder.not_a_point_embed.weight', kept)
        self.filled = self.filled and torch.equal(given.cpu(), kept.cpu())
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args, **kwargs)

    def masks(self, embeddings: Tensor) -> SAMDecoded:
        """Masks under the spatial prompt; with a graph where that is learned."""
        graph = is_trained(self.spatial_prompt) or embeddings.requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            return self.decoder(embeddings, self.spatial_prompt())

    def decode(self, inputs: Tensor | SAMDecoded, aux: bool = False) -> SAMOutput:
        """Masks and class logits under both prompts.

        Args:
            inputs: embeddings (B, D, h, w), or what `masks` made of them.
            aux: SAM has no earlier predictions.
        """
        if not self.filled:
            self.fill(text_bank_of(self.text_bank).embeddings)
        found = inputs if isinstance(inputs, SAMDecoded) else self.masks(inputs)
        semantic = torch.cat([self.semantic_prompt(), self.no_object])  # (C+1, E)
        logits = self.decoder.class_logits(found.queries, semantic)
        return SAMOutput(logits, found.masks, found.queries)
