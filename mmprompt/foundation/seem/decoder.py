"""SEEM's decoder: object queries, masked attention, classes by similarity to text.

The object queries never see strokes in the published v0: strokes make a copy of the queries, and
only the copy attends to them. `object_tokens=True`, or giving free tokens, is the variant of the
public demo, in which the object queries themselves attend to spatial tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.upsampling import MASK_STRIDE
from mmprompt.foundation.seem.decoder_layer import DecoderLayer, Level, Start
from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput, StrokeOutput, Strokes
from mmprompt.foundation.seem.hints import (
    check_rows,
    check_semantic,
    check_tokens,
    read_spatial,
    read_strokes,
)
from mmprompt.foundation.seem.layers import sine_position
from mmprompt.foundation.seem.strokes import (
    StrokePoints,
    mean_of_points,
    sample_points,
    stroke_points,
)
from mmprompt.registry import MODELS

MAX_POINTS = 512


@MODELS.register_module()
class SEEMDecoder(BaseModule):
    """Masked-attention decoder with `num_queries` learned queries.

    Args:
        dim: width of queries and maps.
        num_layers: layers; layer i reads map i mod 3 of strides 32, 16, 8.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forwards.
        num_queries: object queries (the last one is never replaced by a prompt).
        mask_dim: width of the mask features.
        proj_dim: width of the text embeddings.
        num_memory: memory prompts of the stroke path.
        object_tokens: object queries attend to the tokens of strokes (the demo's attention); to
            free tokens, see `forward`, they always do.
        logit_scale: start of the log temperature of the class similarity; 1.0 in the reference.
        init_cfg: MMEngine initialisation config.
    """

    num_levels = 3

    def __init__(
        self,
        dim: int = 512,
        num_layers: int = 9,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        num_queries: int = 101,
        mask_dim: int = 512,
        proj_dim: int = 512,
        num_memory: int = 32,
        object_tokens: bool = False,
        logit_scale: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.dim, self.num_queries, self.num_memory = dim, num_queries, num_memory
        self.object_tokens = object_tokens
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_feat = nn.Parameter(torch.randn(num_queries, dim))
        self.query_embed = nn.Parameter(torch.randn(num_queries, dim))
        self.level_embed = nn.Parameter(torch.randn(self.num_levels, dim))
        self.class_embed = nn.Parameter(torch.randn(dim, proj_dim) * 0.02)
        self.mask_embed = nn.ModuleList(
            (nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, mask_dim))
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale)))
        self.mask_spatial_embed = nn.ParameterList(
            nn.Parameter(torch.randn(dim, dim) / math.sqrt(dim)) for _ in range(self.num_levels)
        )
        self.pn_indicator = nn.Parameter(torch.randn(2, dim))
        self.memory_content = nn.Parameter(torch.randn(num_memory, dim))
        self.memory_position = nn.Parameter(torch.randn(num_memory, dim))

    # ---------------------------------------------------------------- inputs
    def _levels(self, features: SEEMFeatures) -> list[Level]:
        levels = []
        with torch.no_grad():
            masks = features.mask_features.detach()
            pooled = [
                F.interpolate(masks, size=m.shape[2:], mode='bilinear', align_corners=False)
                for m in features.multi_scale
            ]
        for i, source in enumerate(features.multi_scale):
            height, width = source.shape[2:]
            # Contiguous for the products to come, whose bits then depend on no map's layout.
            value = source.flatten(2).transpose(1, 2).contiguous()  # (B, H*W, D)
            value = value + self.level_embed[i]
            key = value + sine_position(height, width, self.dim, value)
            levels.append(Level(key, value, (height, width), pooled[i].flatten(2)))
        return levels

    def _queries(self, spatial: dict, batch: int) -> tuple[Tensor, Tensor]:
        """Content (B, Q, D) and position (B, Q, D) of the object queries."""
        out = []
        for name, default in (('content', self.query_feat), ('position', self.query_embed)):
            rows = spatial.get(name)
            whole = default
            if rows is not None:
                check_rows(name, rows, self.dim, self.num_queries, batch)
                rest = default[rows.shape[-2] :].expand(*rows.shape[:-2], -1, -1)
                whole = torch.cat((rows.to(default.dtype), rest), -2)
            out.append(whole.expand(batch, -1, -1))
        return out[0], out[1]

    def spatial_tokens(self, level: int, source: Tensor, negative: bool = False) -> Tensor:
        """Token vectors from values read off (or standing in for) the map of `level`.

        Args:
            level: 0, 1, 2 for strides 32, 16, 8.
            source: (..., D) map values with level embedding, or positions for image-free tokens.
            negative: which of the two indicators to add.
        """
        return source @ self.mask_spatial_embed[level] + self.pn_indicator[int(negative)]

    def _stroke_tokens(self, levels: list[Level], points: StrokePoints) -> list[Tensor]:
        """Per level (B, T, D); padded points give tokens that the mask hides."""
        negative = (points.sign < 0)[..., None]
        tokens = []
        for i, level in enumerate(levels):
            source = level.value.transpose(1, 2).unflatten(2, level.size)  # (B, D, H, W)
            values = sample_points(source, points.where) @ self.mask_spatial_embed[i]
            tokens.append(
                values + torch.where(negative, self.pn_indicator[1], self.pn_indicator[0])
            )
        return tokens

    # ---------------------------------------------------------------- attention masks
    @torch.no_grad()
    def _cross_allowed(self, query: Tensor, level: Level, start: Start) -> Tensor:
        """Where each query may look (B, 1, L, H*W): its own mask, or everywhere if that is empty.

        Mask logits are linear in the mask features, so resizing these once equals resizing the
        logits of every query.
        """
        vectors = self._mask_vector(self.decoder_norm(query[:, : start.heads]))
        allowed = (vectors @ level.mask_features) >= 0  # (B, heads, H*W)
        if start.memory is not None:
            previous = F.interpolate(
                start.memory, size=level.size, mode='bilinear', align_corners=False
            )
            previous = (previous >= 0).flatten(2).expand(-1, self.num_memory, -1)
            allowed = torch.cat((allowed, previous), 1)
        return (allowed | ~allowed.any(-1, keepdim=True))[:, None]

    def _self_allowed(self, start: Start, valid: Tensor) -> Tensor:
        """(B, 1, L, L+T) who attends to whom, T tokens of which `valid` (B, T) exist.

        Queries with a mask of their own see one another, the memory prompts and the tokens; memory
        prompts see only one another.
        """
        rows = start.query.shape[1]
        allowed = valid.new_ones(len(valid), rows, rows)
        allowed[:, start.heads :, : start.heads] = False
        tokens = valid[:, None].repeat(1, rows, 1)
        tokens[:, start.heads :] = False
        return torch.cat((allowed, tokens), 2)[:, None]

    # ---------------------------------------------------------------- heads
    def _mask_vector(self, normed: Tensor) -> Tensor:
        first, second, third = self.mask_embed
        return third(F.relu(second(F.relu(first(normed)))))

    def class_logits(self, normed: Tensor, semantic: Tensor) -> Tensor:
        """Scaled cosine-like similarity (B, Q, C+1); `semantic` is used as it comes."""
        vector = normed @ self.class_embed
        vector = vector / (vector.norm(dim=-1, keepdim=True) + 1e-7)
        return self.logit_scale.exp() * (vector @ semantic.t())

    def _predict(
        self,
        queries: list[Tensor],
        semantic: Tensor,
        features: SEEMFeatures,
        means: list[Tensor] | None,
    ) -> SEEMOutput:
        """Heads of the object queries and, given `means`, of the last group, which saw strokes."""
        # Memory prompts, behind the others of their group, have no heads.
        normed = [self.decoder_norm(query[:, : self.num_queries]) for query in queries]
        vectors = [self._mask_vector(rows) for rows in normed]
        answer = None
        if means is not None:
            answer = StrokeOutput(vectors[-1], *means, features.mask_features)
        logits = self.class_logits(normed[0], semantic)
        return SEEMOutput(logits, vectors[0], features.mask_features, normed[0], strokes=answer)

    # ---------------------------------------------------------------- forward
    def forward(
        self,
        features: SEEMFeatures,
        semantic: Tensor,
        spatial: Tensor | dict | None = None,
        strokes: Strokes | Mapping | Tensor | None = None,
        aux: bool = False,
    ) -> SEEMOutput:
        """Decode.

        Args:
            features: maps of the image side.
            semantic: (C+1, D_text) class embeddings, no-object row last; used unchanged.
            spatial: replacement rows for the learned queries. A tensor (N, D) is `content`; a dict
                may hold `content` and `position` ((N, D) or (B, N, D): first N rows of
                `query_feat`, `query_embed`) and `tokens` ((T, D), or (3, T, D) for one set per
                map), to which the object queries then attend, and to strokes too, as under
                `object_tokens`.
            strokes: drawn hints at the padded input size: `Strokes`, a dict with its fields, or a
                bare mask (B, H, W) of positive ones.
            aux: also return the predictions before layer 0 and after each earlier layer.

        Raises:
            UserError: unknown keys or wrong shapes.
        """
        check_semantic(semantic, self.class_embed.shape[1])
        batch, _, height, width = features.mask_features.shape
        strokes = read_strokes(strokes, batch, (MASK_STRIDE * height, MASK_STRIDE * width))
        levels = self._levels(features)
        starts, means = self._starts(features, levels, read_spatial(spatial), strokes)
        queries, earlier = [start.query for start in starts], []
        for i, layer in enumerate(self.layers):
            turn = i % self.num_levels
            if aux:
                earlier.append(self._predict(queries, semantic, features, means))
            seen = layer.see(levels[turn])
            queries = [
                layer(
                    query,
                    start.position,
                    seen,
                    self._cross_allowed(query, levels[turn], start),
                    None if start.tokens is None else start.tokens[turn],
                    start.self_allowed,
                )
                for query, start in zip(queries, starts)
            ]
        last = self._predict(queries, semantic, features, means)
        last.aux = earlier
        last.materialise()
        return last

    def _starts(
        self,
        features: SEEMFeatures,
        levels: list[Level],
        spatial: dict,
        strokes: Strokes | None,
    ) -> tuple[list[Start], list[Tensor] | None]:
        """Object queries, then their copies if only these see strokes; means under the strokes.

        The means are of the mask features, (B, Dm), under positive and under negative strokes. The
        two groups run apart, so that strokes do not move an object query by as much as rounding.
        """
        batch = levels[0].value.shape[0]
        query, position = self._queries(spatial, batch)
        starts = [Start(query, position, self.num_queries)]
        points = means = None
        if strokes is not None:
            points = stroke_points(strokes, query.dtype, MAX_POINTS, self.training)
            means = [mean_of_points(features.mask_features, points, s) for s in (1, -1)]
            if not self.object_tokens and 'tokens' not in spatial:
                starts.append(self._copies(starts[0], strokes.previous))
        if points is not None or 'tokens' in spatial:
            last = starts[-1]
            last.tokens, valid = self._tokens(levels, points, spatial.get('tokens'))
            last.self_allowed = self._self_allowed(last, valid)
        return starts, means

    def _copies(self, objects: Start, previous: Tensor | None) -> Start:
        """The group that sees strokes: the object queries again and, in later rounds, memory."""
        if previous is None:
            return Start(objects.query, objects.position, objects.heads)
        rows = (objects.query, objects.position), (self.memory_content, self.memory_position)
        query, position = (
            torch.cat((own, memory.expand(len(own), -1, -1)), 1) for own, memory in zip(*rows)
        )
        return Start(query, position, objects.heads, memory=previous)

    def _tokens(
        self, levels: list[Level], points: StrokePoints | None, free: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Tokens per level, each (B, T, D), and which exist (B, T): strokes, then free ones."""
        batch = levels[0].value.shape[0]
        tokens: list[Tensor] = []
        valid = []
        if points is not None:
            tokens = self._stroke_tokens(levels, points)
            valid.append(points.valid)
        if free is not None:
            check_tokens(free, self.dim, self.num_levels)
            per_level = free if free.dim() == 3 else free.expand(self.num_levels, -1, -1)
            per_level = per_level[:, None].expand(-1, batch, -1, -1)  # (3, B, T, D)
            free_valid = torch.ones(per_level.shape[1:3], dtype=torch.bool, device=free.device)
            valid.append(free_valid)
            tokens = [
                torch.cat((tokens[i], rows), 1) if tokens else rows
                for i, rows in enumerate(per_level)
            ]
        return tokens, torch.cat(valid, 1)
