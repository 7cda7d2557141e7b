"""The semantic-aware prompt matcher: a feature and a semantic map -> a prompt and a better map."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.registry import MODELS

CONTEXTS = ('pdc', 'conv3x3')
BATCH_NORM, RELU = dict(type='BN'), dict(type='ReLU')


class PyramidDilatedConv(nn.Module):
    """Four dilated 3x3 convolutions, each on a share of the channels, then a 1x1 one (Fig. 3).

    Args:
        channels: of input and output; a multiple of the number of dilations.
        dilations: one rate per share.
        norm_cfg, act_cfg: what follows each convolution, as in MMCV; None for nothing.

    Raises:
        ValueError: the channels cannot be shared out evenly.
    """

    def __init__(
        self,
        channels: int,
        dilations: Sequence[int] = (1, 2, 4, 8),
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if not dilations or channels % len(dilations):
            raise ValueError(
                f'PyramidDilatedConv.channels: expected a multiple of the {len(dilations)} '
                f'dilations {tuple(dilations)}, found {channels}.'
            )
        share = channels // len(dilations)
        more = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.branches = nn.ModuleList(
            ConvModule(share, share, 3, padding=rate, dilation=rate, **more) for rate in dilations
        )
        self.fuse = ConvModule(channels, channels, 1, **more)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        shares = feature.chunk(len(self.branches), dim=1)
        context = [branch(share) for branch, share in zip(self.branches, shares)]
        return self.fuse(torch.cat(context, dim=1))


class MatcherBranch(nn.Module):
    """One branch of Fig. 2: 1x1 convolution of feature and semantic map, context, 1x1 convolution.

    Args:
        in_channels: c of the feature.
        num_classes: s of the semantic map.
        channels: c-hat, between the two 1x1 convolutions.
        out_channels: of the result.
        context: 'pdc', or 'conv3x3' for the ablation without long-range context.
        dilations, norm_cfg, act_cfg: as in `PyramidDilatedConv`; the last convolution has neither
            norm nor activation.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int,
        out_channels: int,
        context: str,
        dilations: Sequence[int],
        norm_cfg: dict | None,
        act_cfg: dict | None,
    ) -> None:
        super().__init__()
        more = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.embed = ConvModule(in_channels + num_classes, channels, 1, **more)
        if context == 'pdc':
            self.context = PyramidDilatedConv(channels, dilations, **more)
        else:
            self.context = ConvModule(channels, channels, 3, padding=1, **more)
        self.project = nn.Conv2d(channels, out_channels, 1)
        self.in_channels = in_channels

    def forward(self, embedded: Tensor, semantic: Tensor) -> Tensor:
        """The feature's part of the first convolution and the semantic map -> (B, out, h, w).

        Args:
            embedded: (B, c-hat, h, w), of `feature_weights`.
            semantic: (B, s, h, w), or (B, s, 1, 1) if it is the same everywhere.
        """
        # The convolution of a concatenation is a sum: no copy of the feature is made.
        out = embedded + F.conv2d(semantic, self.embed.conv.weight[:, self.in_channels :])
        if self.embed.with_norm:
            out = self.embed.norm(out)
        if self.embed.with_activation:
            out = self.embed.activate(out)
        return self.project(self.context(out))

    def feature_weights(self) -> tuple[Tensor, Tensor | None]:
        """Weight (c-hat, c, 1, 1) and bias of the first convolution, as the feature meets it."""
        return self.embed.conv.weight[:, : self.in_channels], self.embed.conv.bias


@MODELS.register_module()
class SPM(BaseModule):
    """Semantic-aware prompt matcher (Eqs. 1, 3 and 4).

    Args:
        in_channels: c, channels of the features before the stage.
        num_classes: s, semantic categories.
        channels: c-hat, the width inside both branches.
        context: 'pdc', or 'conv3x3', one plain 3x3 convolution in place of the pyramid.
        dilations: of the pyramid.
        norm_cfg, act_cfg: after every convolution but the last of each branch; None for nothing.
        zero_start: the last convolution of the prompt branch begins at zero, so that the first
            step sees exactly the frozen backbone.

    Raises:
        ValueError: an unknown context, or channels that the dilations do not divide.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        context: str = 'pdc',
        dilations: Sequence[int] = (1, 2, 4, 8),
        norm_cfg: dict | None = BATCH_NORM,
        act_cfg: dict | None = RELU,
        zero_start: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if context not in CONTEXTS:
            raise ValueError(f'SPM.context: expected one of {CONTEXTS}, found {context!r}.')
        width = (in_channels, num_classes, channels)
        inner = (context, dilations, norm_cfg, act_cfg)
        self.semantic = MatcherBranch(*width, num_classes, *inner)
        self.prompt = MatcherBranch(*width, in_channels, *inner)
        if zero_start:
            nn.init.zeros_(self.prompt.project.weight)
            nn.init.zeros_(self.prompt.project.bias)

    def forward(self, feature: Tensor, semantic_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Match a prompt to a feature.

        Args:
            feature: F_{i-1}, (B, c, h, w).
            semantic_probs: M_{i-1}, (B, s, h', w'), resized to the feature if its size differs.

        Returns:
            The prompt P_i (B, c, h, w), to be added to the feature, the map M_i (B, s, h, w), and
            its logits, of the same shape.
        """
        # One cell is the same everywhere: its convolution is added to every position instead.
        if semantic_probs.shape[-2:] not in ((1, 1), feature.shape[-2:]):
            semantic_probs = F.interpolate(
                semantic_probs, size=feature.shape[-2:], mode='bilinear', align_corners=False
            )
        for_semantic, for_prompt = self._embed(feature)
        logits = self.semantic(for_semantic, semantic_probs)  # (B, s, h, w)
        refined = logits.softmax(dim=1)
        weight = self.prompt(for_prompt, refined)  # W_i, (B, c, h, w)
        return feature * weight, refined, logits

    def _embed(self, feature: Tensor) -> tuple[Tensor, ...]:
        """The feature's part of both branches' first convolutions, in one: it is read once."""
        weights, biases = zip(*(b.feature_weights() for b in (self.semantic, self.prompt)))
        bias = None if biases[0] is None else torch.cat(biases)
        return F.conv2d(feature, torch.cat(weights), bias).chunk(2, dim=1)
