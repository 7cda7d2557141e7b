"""A backbone that, like an image encoder of CLIP, names what it sees; with random weights."""

import torch
from mmseg.models import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.registry import MODELS


@MODELS.register_module()
class ToyCLIP(ResNet):
    """The toy's ResNet and a projection of its last map's 32 channels."""

    logit_scale = 9.0

    def __init__(self, embed_dim: int, **kwargs) -> None:
        super().__init__(**kwargs)
        draw = torch.Generator().manual_seed(5)
        self.projection = nn.Parameter(torch.randn(embed_dim, 32, generator=draw))

    def embed(self, pooled: Tensor) -> Tensor:
        return F.normalize(pooled.to(self.projection) @ self.projection.t(), dim=-1)
