"""The baseline that learns where the spatial prompts stand: VSPL (paper, Table 8)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.methods.ssprompt.sources import GridSource, grid_points, point_positions
from mmprompt.registry import MODELS


@MODELS.register_module()
class VSPL(BaseModule):
    """Vanilla spatial prompt learning: the 2-D coordinates of the points of a grid are learned.

    The points are encoded anew at each step by the frozen encoder of `GridSource`, so step 0 is the
    zero-shot model of the grid. 100 points are 200 parameters. The parameter is the way that each
    point has gone from its place in the grid, which weight decay pulls it back to. A step that
    takes a point out of the image ends at its border.

    Args:
        num_prompts: N, a square number.
        dim: D of the decoder; `SEEMPromptHead` gives it.
    """

    source, source_name = GridSource, 'grid'

    def __init__(self, num_prompts: int = 100, dim: int = 512, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        grid_points(num_prompts)  # refuses numbers that are no square
        self.num_prompts, self.dim = num_prompts, dim
        self.offset = nn.Parameter(torch.zeros(num_prompts, 2))
        self.filled = False

    @property
    def reading(self) -> dict:
        """See `BlendedPrompt`."""
        return {'source': self.source_name}

    def fill(self, default: Tensor) -> None:
        """The default rows (R, D) are those of an offset of zero."""
        self.filled = True

    @property
    def points(self) -> Tensor:
        """Where the points stand, (N, 2) as (y, x) in [0, 1]; in double precision, as the grid."""
        grid = grid_points(self.num_prompts).to(self.offset.device)
        points = grid + self.offset
        # The border stops no gradient: rounding may leave a point of the border a hair outside.
        return points + (points.clamp(0, 1) - points).detach()

    def forward(self) -> Tensor:
        """Sine positions of the points, (R, D)."""
        if self.training:
            # Projected gradient descent: what went beyond the border is forgotten.
            grid = grid_points(self.num_prompts).to(self.offset)
            self.offset.data.clamp_(-grid, 1 - grid)
        return point_positions(self.points, self.dim).to(self.offset)
