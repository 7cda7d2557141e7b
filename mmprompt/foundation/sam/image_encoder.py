"""SAM's image encoder in MobileSAM's size: timm's TinyViT and the neck of SAM.

Notation: B images, (H, W) input pixels, (h, w) = (H/16, W/16) cells, D channels.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.registry import MODELS

STRIDE = 16


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a map (B, D, h, w)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        centred = x - x.mean(1, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def _tiny_vit(**sizes) -> nn.Module:
    try:
        from timm.models.tiny_vit import TinyVit
    except ImportError as error:
        raise UserError(
            'SAMImageEncoder needs timm, which is not installed. Install it with `pip install '
            '"timm>=1.0.21,<2"`.'
        ) from error
    return TinyVit(num_classes=0, drop_path_rate=0.0, **sizes)


@MODELS.register_module()
class SAMImageEncoder(BaseModule):
    """Normalised images -> the embedding that SAM's mask decoder reads.

    The published input is square, 1024 pixels, with zeros at the right and bottom. Attention is
    local, in windows, so any size works.

    Args:
        embed_dims: channels of the four stages.
        depths: blocks of each stage.
        num_heads: heads of each stage; the first one has convolutions only.
        window_sizes: sides of the windows of each stage.
        dim: D.
    """

    def __init__(
        self,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        dim: int = 256,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.body = _tiny_vit(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_sizes=tuple(window_sizes),
        )
        # MobileSAM stays at stride 16, where the classifier TinyViT goes on to 32.
        self.body.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.body.head = nn.Identity()
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], dim, 1, bias=False),
            LayerNorm2d(dim),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            LayerNorm2d(dim),
        )
        self.dim = dim

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w).

        Raises:
            ValueError: a side is no multiple of 16.
        """
        if images.shape[-2] % STRIDE or images.shape[-1] % STRIDE:
            raise ValueError(
                f'SAMImageEncoder takes sides that are multiples of {STRIDE}, found '
                f'{tuple(images.shape[-2:])}; pad at the right and bottom.'
            )
        return self.neck(self.body.forward_features(images))
