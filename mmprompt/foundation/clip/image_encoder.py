"""The ConvNeXt image encoder of a CLIP as a backbone, and what turns its vectors to embeddings."""

import os
from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.foundation.clip.loading import (
    build_clip,
    check_clip,
    clip_architecture,
    clip_weights,
    read_clip,
)
from mmprompt.registry import MODELS

#: In place of the text encoder, which a backbone does not keep.
_NO_TEXT = dict(context_length=1, vocab_size=1, width=1, heads=1, layers=1)
_VISUAL = 'visual.'


@MODELS.register_module()
class CLIPConvNeXt(BaseModule):
    """Maps of a CLIP's ConvNeXt, as a backbone that is usually frozen, through open_clip.

    Images are normalised as CLIP's are: mean (122.771, 116.746, 104.094), deviation (68.501,
    66.632, 70.323), in RGB. Weights come by `init_weights`; building reads no file.

    Args:
        model: of `load_clip`, whose image encoder is a ConvNeXt of timm; ``convnext_large_d_320``
            has maps of 192, 384, 768 and 1536 channels.
        pretrained: of `load_clip`; None: random weights, or those of `init_cfg`.
        out_indices: which of the four maps, of strides 4, 8, 16 and 32, are returned.
        init_cfg: MMEngine initialisation config, in place of `pretrained`.

    Raises:
        UserError: no such model, or one whose image encoder is no ConvNeXt.
        ValueError: both `pretrained` and `init_cfg`, or a map that there is not.
    """

    def __init__(
        self,
        model: str | Mapping = 'convnext_large_d_320',
        pretrained: str | os.PathLike | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | None = None,
    ) -> None:
        if pretrained is not None and init_cfg is not None:
            raise ValueError('CLIPConvNeXt takes pretrained or init_cfg, not both.')
        if not out_indices or not set(out_indices) <= set(range(4)):
            raise ValueError(f'out_indices: expected some of 0 to 3, found {tuple(out_indices)}.')
        if pretrained is not None:  # says where the weights come from, as those of other backbones
            init_cfg = dict(type='Pretrained', checkpoint=str(pretrained))
        super().__init__(init_cfg)
        self.model, self.pretrained = model, pretrained
        self.out_indices = tuple(out_indices)
        clip = build_clip({**clip_architecture(model, pretrained), 'text_cfg': _NO_TEXT})
        self.visual, self.log_scale = clip.visual, clip.logit_scale
        if type(getattr(self.visual, 'trunk', None)).__name__ != 'ConvNeXt':
            raise UserError(
                f'CLIP {model!r}: expected a ConvNeXt of timm as image encoder, found '
                f'{type(getattr(self.visual, "trunk", self.visual)).__name__}. Take one such as '
                f'convnext_large_d_320.'
            )
        # What makes embeddings stays as it was learned, with its texts, if the maps are trained.
        for part in (self.visual.trunk.head, self.visual.head, self.log_scale):
            part.requires_grad_(False)

    def init_weights(self) -> None:
        """Load the weights, all of them.

        Raises:
            UserError: they cannot be had or do not fit.
        """
        if self.pretrained is None:
            super().init_weights()
            return
        file = clip_weights(self.model, self.pretrained)
        state = read_clip(file, self.model)
        with torch.device('meta'):  # for the names and shapes of texts too
            whole = build_clip(clip_architecture(self.model, self.pretrained))
        check_clip(state, whole.state_dict(), file)
        own = {name: x for name, x in state.items() if name.startswith(_VISUAL)}
        self.load_state_dict({**own, 'log_scale': state['logit_scale']})
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised -> the maps (B, C_i, H / stride, W / stride)."""
        trunk, maps = self.visual.trunk, []
        x = trunk.stem(images)
        for i, stage in enumerate(trunk.stages):
            x = stage(x)
            if i == len(trunk.stages) - 1:
                x = trunk.norm_pre(x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def embed(self, pooled: Tensor) -> Tensor:
        """Embeddings of means over the last map: (M, C5) -> (M, D) unit rows.

        The mean over a whole map gives the embedding of the image (`encode_image`); over a part of
        it, that of what is there (FC-CLIP's mask pooling).
        """
        with torch.autocast(pooled.device.type, enabled=False):
            x = self.visual.trunk.head(pooled.to(self.log_scale)[:, :, None, None])  # (M, C5)
            return F.normalize(self.visual.head(x), dim=-1)

    @property
    def logit_scale(self) -> Tensor:
        """By what cosines are multiplied before their softmax; CLIP learned it, at most 100."""
        return self.log_scale.detach().exp().clamp(max=100)
