"""Where the spatial prompt plugs into SEEM: what its default is, and which input it replaces.

The paper names "N = 100 spatial prompt embeddings" of a "grid of points" encoded once. Public SEEM
has no image-free point embedding, so several readings exist. Each is one class here with the same
members; none needs a branch in a forward pass.

Notation: N prompts, D channels, R = N * copies rows that are learned.
"""

import math

import torch
from torch import Tensor, nn


class QuerySource:
    """Reading A: the content of the object queries, `query_feat[:N]`."""

    copies = 1
    needs_object_tokens = False

    @staticmethod
    def default(decoder: nn.Module, num_prompts: int) -> Tensor:
        """Rows that the zero-shot model uses, (R, D)."""
        return decoder.query_feat[:num_prompts]

    @staticmethod
    def pack(rows: Tensor, decoder: nn.Module) -> dict[str, Tensor]:
        """Blended rows (R, D) -> the `spatial` argument of the decoder."""
        return dict(content=rows)


class QueryPositionSource:
    """Reading B: the position embedding of the object queries, `query_embed[:N]`."""

    copies = 1
    needs_object_tokens = False

    @staticmethod
    def default(decoder: nn.Module, num_prompts: int) -> Tensor:
        """Rows that the zero-shot model uses, (R, D)."""
        return decoder.query_embed[:num_prompts]

    @staticmethod
    def pack(rows: Tensor, decoder: nn.Module) -> dict[str, Tensor]:
        """Blended rows (R, D) -> the `spatial` argument of the decoder."""
        return dict(position=rows)


class BothSource:
    """Reading C: content rows, then position rows; twice the parameters."""

    copies = 2
    needs_object_tokens = False

    @staticmethod
    def default(decoder: nn.Module, num_prompts: int) -> Tensor:
        """Rows that the zero-shot model uses, (R, D)."""
        content = decoder.query_feat[:num_prompts]
        return torch.cat([content, decoder.query_embed[:num_prompts]])

    @staticmethod
    def pack(rows: Tensor, decoder: nn.Module) -> dict[str, Tensor]:
        """Blended rows (R, D) -> the `spatial` argument of the decoder."""
        content, position = rows.chunk(2)
        return dict(content=content, position=position)


class GridSource:
    """Reading E: a square grid of image-free points that the object queries attend to.

    The default is the sine position of each point. The frozen map of SEEM's spatial prompt encoder,
    `row @ mask_spatial_embed[l] + pn_indicator[0]`, turns it into the token of level l. That map is
    affine, so blending before it equals Eq. 4 after it, on every level, with one learned row.
    The decoder must be built with ``object_tokens=True``; its zero-shot row differs from SEEM's.
    """

    copies = 1
    needs_object_tokens = True

    @staticmethod
    def default(decoder: nn.Module, num_prompts: int) -> Tensor:
        """Sine positions of the grid points, (R, D)."""
        positions = point_positions(grid_points(num_prompts), decoder.dim)
        return positions.to(decoder.query_feat)

    @staticmethod
    def pack(rows: Tensor, decoder: nn.Module) -> dict[str, Tensor]:
        """Blended rows (R, D) -> tokens (L, R, D), one set per level of the decoder."""
        levels = range(decoder.num_levels)
        return dict(tokens=torch.stack([decoder.spatial_tokens(i, rows) for i in levels]))


class PointSource:
    """SAM alone: a square grid of foreground points, as SAM's own prompt encoder embeds them."""

    copies = 1
    needs_object_tokens = False

    @staticmethod
    def default(decoder: nn.Module, num_prompts: int) -> Tensor:
        """Rows that the zero-shot model uses, (R, D)."""
        return decoder.point_rows(num_prompts)

    @staticmethod
    def pack(rows: Tensor, decoder: nn.Module) -> dict[str, Tensor]:
        """Blended rows (R, D) -> the tokens of the points."""
        return dict(tokens=rows)


SOURCES = dict(
    query=QuerySource,
    query_pos=QueryPositionSource,
    both=BothSource,
    grid=GridSource,
    points=PointSource,
)


def grid_points(num_points: int) -> Tensor:
    """Centres of a square grid over the unit square, (N, 2) as (y, x), row by row.

    Raises:
        ValueError: if `num_points` is not a square number.
    """
    side = math.isqrt(num_points)
    if side * side != num_points:
        raise ValueError(
            f"SpaPrompt(source='grid') needs a square number of prompts, such as 100; "
            f'found num_prompts={num_points}.'
        )
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


def point_positions(points: Tensor, dim: int, temperature: float = 1e4) -> Tensor:
    """Sine embedding of points, the one that SEEM adds to its image features.

    Args:
        points: (N, 2), (y, x) in [0, 1].
        dim: D, a multiple of 4; the first half encodes y, the second x.
        temperature: ratio of the longest to the shortest wave length.

    Returns:
        (N, D), sine and cosine interleaved.
    """
    quarter = dim // 4
    exponent = torch.arange(quarter, dtype=points.dtype) / quarter
    phase = 2 * math.pi * points[..., None] / temperature**exponent  # (N, 2, D/4)
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)  # (N, D)
