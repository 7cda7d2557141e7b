"""DaViT: units of window attention over pixels and attention over channels, in four stages.

Architecture facts: Ding et al., "DaViT: Dual Attention Vision Transformers", with the channel
attention that SEEM's two sizes (d3, d5) use. The network itself is timm's.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.utils import digit_version
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.registry import MODELS

OLDEST_TIMM = '1.0.21'  # the first release whose DaViT can be built on the meta device
DOWN_KERNELS = (2, 3)


def _timm_davit() -> type[nn.Module]:
    """timm's class, imported at first use: nobody else should need timm, or wait for it."""
    try:
        import timm
        from timm.models.davit import DaVit
    except ImportError as error:
        found = f'it cannot be imported ({error})'
    else:
        if digit_version(timm.__version__) >= digit_version(OLDEST_TIMM):
            return DaVit
        found = f'found {timm.__version__}'
    raise UserError(
        f'DaViT: expected timm {OLDEST_TIMM} or later, {found}. Run `pip install timm` '
        f'(`pip install -U timm` for a newer one).'
    )


@MODELS.register_module()
class DaViT(BaseModule):
    """DaViT backbone of SEEM, from the modules of `timm.models.davit.DaVit`.

    Each unit is a spatial block (window attention) and a channel block (attention between the
    channels of a group, over all tokens), and each block is x += dw3x3(x); x += attn(LN x);
    x += dw3x3(x); x += mlp(LN x). Windows are zero-padded and neither shifted nor biased. Channel
    attention has a d x d matrix per group, however many tokens N there are, and scales its queries
    by N^-1/2. There is no norm on the outputs. The defaults are those of d3.

    While training, both blocks of a unit share their drop path rate, as in timm; the public code
    raises it from block to block. Without training nothing depends on it.

    Args:
        embed_dims: channels per stage.
        depths: units per stage.
        num_heads: heads of the spatial blocks and groups of the channel blocks, per stage;
            channels / 32 in every published size.
        window_size: side of the windows, in tokens.
        down_kernel: kernel of the stride-2 convolutions between stages: 2 (d3, no padding) or
            3 (d5, padding 1).
        mlp_ratio: hidden width of the MLPs over the channels.
        drop_path_rate: stochastic depth of the last unit, rising linearly from 0.
        init_cfg: MMEngine initialisation config.

    Attributes:
        out_channels: channels of the four outputs.

    Raises:
        UserError: sizes that do not fit one another, or no timm of 1.0.21 or later.
    """

    def __init__(
        self,
        embed_dims: Sequence[int] = (128, 256, 512, 1024),
        depths: Sequence[int] = (1, 1, 9, 1),
        num_heads: Sequence[int] = (4, 8, 16, 32),
        window_size: int = 7,
        down_kernel: int = 2,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.3,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_sizes(embed_dims, depths, num_heads, down_kernel)
        net = _timm_davit()(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            down_kernel_size=down_kernel,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            channel_attn_v2=True,  # the variant that scales by the token count
            named_blocks=True,
            num_classes=0,
        )
        self.out_channels = list(embed_dims)
        # The classifier's norm and pooling stay behind.
        self.stem = net.stem
        self.stages = net.stages

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalised image (B, 3, H, W) -> maps at strides 4, 8, 16, 32, each (B, C_i, h, w).

        Sizes round up: h = ceil(H / 4), then ceil(h / 2) per stage. (The public d3 rounds down
        between stages; SEEM pads images to multiples of 32, where both are the same.)
        """
        x = self.stem(x)
        outs = []
        for stage in self.stages:
            x = stage(x)
            outs.append(x)
        return tuple(outs)


def _check_sizes(
    dims: Sequence[int], depths: Sequence[int], heads: Sequence[int], down_kernel: int
) -> None:
    if not len(dims) == len(depths) == len(heads):
        raise UserError(
            f'DaViT: expected embed_dims, depths and num_heads of one length, found '
            f'{len(dims)}, {len(depths)} and {len(heads)}. Give one value per stage.'
        )
    for i, (dim, count) in enumerate(zip(dims, heads)):
        if dim % count:
            raise UserError(
                f'DaViT: expected embed_dims[{i}] to be a multiple of num_heads[{i}], found {dim} '
                f'and {count}. Change one of them.'
            )
    if down_kernel not in DOWN_KERNELS:
        raise UserError(
            f'DaViT: down_kernel must be one of {DOWN_KERNELS}, found {down_kernel!r}. '
            f'd3 has 2 and d5 has 3.'
        )
