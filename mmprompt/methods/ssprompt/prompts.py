"""The two learned prompts of SSPrompt (paper Section 3.3) and the prompt that learns nothing.

A prompt is a set of rows. Row n is blended as Eq. 4 (spatial) and Eq. 6 (semantic) say,

    w_n * learned_n + (1 - w_n) * default_n,   w_n in [0, 1],

where the defaults come from the frozen model, are stored once as a buffer, and are saved nowhere.

Notation: R rows, D channels.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.methods.ssprompt.sources import SOURCES
from mmprompt.registry import MODELS


class SigmoidWeight(nn.Module):
    """w = sigmoid(theta): always inside (0, 1); `init` 0.5 means theta = 0."""

    def __init__(self, rows: int, init: float = 0.5) -> None:
        super().__init__()
        if not 0 < init < 1:
            raise ValueError(f'weight.init must lie between 0 and 1 for sigmoid, found {init!r}.')
        self.theta = nn.Parameter(torch.full((rows,), math.log(init / (1 - init))))

    def forward(self) -> Tensor:
        """Weights, (R,)."""
        return self.theta.sigmoid()


class ClampWeight(nn.Module):
    """w itself is the parameter, put back into [0, 1] whenever a step has taken it out."""

    def __init__(self, rows: int, init: float = 0.5) -> None:
        super().__init__()
        if not 0 <= init <= 1:
            raise ValueError(f'weight.init must be 0 to 1 for clamp, found {init!r}.')
        self.value = nn.Parameter(torch.full((rows,), float(init)))

    def forward(self) -> Tensor:
        """Weights, (R,)."""
        if self.training:
            # Projected gradient descent: a value left outside would get no gradient ever again.
            self.value.data.clamp_(0, 1)
        return self.value.clamp(0, 1)


class FixedWeight(nn.Module):
    """A constant w: the rows "learnable embedding without learnable weight" of Table 5."""

    def __init__(self, rows: int, value: float = 0.5) -> None:
        super().__init__()
        if not 0 <= value <= 1:
            raise ValueError(f'weight.value must be 0 to 1 for fixed, found {value!r}.')
        self.value = float(value)
        self.register_buffer('constant', torch.full((rows,), self.value), persistent=False)

    def forward(self) -> Tensor:
        """Weights, (R,)."""
        return self.constant


WEIGHTS = dict(sigmoid=SigmoidWeight, clamp=ClampWeight, fixed=FixedWeight)
INITS = ('default', 'zero', 'normal')
DECAY_TARGETS = dict(default='offset', zero='learned')


def _choose(options: Mapping, key: str, argument: str):
    if key not in options:
        raise ValueError(f'{argument} must be one of {sorted(options)}, found {key!r}.')
    return options[key]


class BlendedPrompt(BaseModule):
    """Rows that blend a learned and a default embedding. Base of both prompts.

    The trained tensors are the weights' and one of two forms of the embedding, chosen by what
    weight decay should pull it to: ``offset`` (learned = default + offset, decays to the default)
    or ``learned`` (the embedding itself, decays to zero).

    Args:
        rows: R.
        dim: D.
        weight: 'sigmoid', 'clamp' or 'fixed', or a dict of that ``type`` and its arguments.
        init: where the learned embedding starts: 'default' (step 0 equals the zero-shot model
            exactly), 'zero', or 'normal'.
        init_std: standard deviation of 'normal'.
        decay_to: what weight decay pulls the learned embedding to, 'default' or 'zero'.
    """

    def __init__(
        self,
        rows: int,
        dim: int,
        weight: str | dict = 'sigmoid',
        init: str = 'default',
        init_std: float = 0.02,
        decay_to: str = 'default',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if init not in INITS:
            raise ValueError(f'init must be one of {list(INITS)}, found {init!r}.')
        self.init, self.init_std = init, init_std
        kind = dict(type=weight) if isinstance(weight, str) else dict(weight)
        self.weight_kind = kind.pop('type', None)
        self.weight = _choose(WEIGHTS, self.weight_kind, 'weight.type')(rows, **kind)
        self._embedding = _choose(DECAY_TARGETS, decay_to, 'decay_to')
        self.register_parameter(self._embedding, nn.Parameter(torch.zeros(rows, dim)))
        self.register_buffer('default', torch.zeros(rows, dim), persistent=False)
        self.filled = False
        self._restored = False

    @property
    def _origin(self) -> Tensor | float:
        """What the parameter is measured from."""
        return self.default if self._embedding == 'offset' else 0.0

    @property
    def embedding(self) -> Tensor:
        """The learned embedding, (R, D), in either form of the parameter."""
        return getattr(self, self._embedding) + self._origin

    @property
    def reading(self) -> dict:
        """What the trained tensors mean, beyond their names and shapes; plain values."""
        fixed = {'weight.value': self.weight.value} if self.weight_kind == 'fixed' else {}
        return {'weight': self.weight_kind, **fixed}

    @torch.no_grad()
    def fill(self, default: Tensor) -> None:
        """Store the default rows and start the learned ones, unless those were loaded before.

        Args:
            default: (R, D).
        """
        self.default.copy_(default)
        if not self._restored:
            start = dict(
                default=lambda: self.default,
                zero=lambda: torch.zeros_like(self.default),
                normal=lambda: torch.randn_like(self.default) * self.init_std,
            )[self.init]()
            getattr(self, self._embedding).copy_(start - self._origin)
        self.filled = True

    def forward(self) -> Tensor:
        """Blended rows, (R, D)."""
        # lerp is Eq. 4 and Eq. 6, and exact where the learned row equals the default one.
        return torch.lerp(self.default, self.embedding, self.weight()[:, None])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        self._restored = self._restored or prefix + self._embedding in state_dict
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class SpaPrompt(BlendedPrompt):
    """Spatial prompt, Eq. 4: N rows, 100 * 513 = 51,300 parameters at D = 512.

    Args:
        num_prompts: N. The decoder's further query (101st in SEEM) stays frozen.
        dim: D of the decoder; `SEEMPromptHead` gives it.
        source: which input of the decoder is learned: 'query' (content), 'query_pos' (position),
            'both', or 'grid' (image-free tokens; see `sources.GridSource`).
        weight, init, init_std, decay_to: see `BlendedPrompt`.
    """

    def __init__(
        self,
        num_prompts: int = 100,
        dim: int = 512,
        source: str = 'query',
        weight: str | dict = 'sigmoid',
        init: str = 'default',
        init_std: float = 0.02,
        decay_to: str = 'default',
        init_cfg: dict | None = None,
    ) -> None:
        chosen = _choose(SOURCES, source, 'source')
        rows = num_prompts * chosen.copies
        super().__init__(rows, dim, weight, init, init_std, decay_to, init_cfg)
        self.num_prompts = num_prompts
        self.source, self.source_name = chosen, source

    @property
    def reading(self) -> dict:
        """See `BlendedPrompt`."""
        return {'source': self.source_name, **super().reading}


@MODELS.register_module()
class SemPrompt(BlendedPrompt):
    """Semantic prompt, Eq. 6: one row per class, 19 * 513 = 9,747 parameters on Cityscapes.

    The row of "no object" is no class: the head keeps it as it is.

    Args:
        num_prompts: C; `SEEMPromptHead` gives it.
        dim: D of the text embeddings; `SEEMPromptHead` gives it.
        renormalise: bring blended rows back to unit length. Off, because the paper does not say so.
        weight, init, init_std, decay_to: see `BlendedPrompt`.
    """

    def __init__(
        self,
        num_prompts: int,
        dim: int = 512,
        renormalise: bool = False,
        weight: str | dict = 'sigmoid',
        init: str = 'default',
        init_std: float = 0.02,
        decay_to: str = 'default',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(num_prompts, dim, weight, init, init_std, decay_to, init_cfg)
        self.num_prompts = num_prompts
        self.renormalise = renormalise

    @property
    def reading(self) -> dict:
        """See `BlendedPrompt`."""
        return {'renormalise': self.renormalise, **super().reading}

    def forward(self) -> Tensor:
        """Blended rows, (C, D)."""
        rows = super().forward()
        return F.normalize(rows, dim=-1) if self.renormalise else rows


@MODELS.register_module()
class DefaultPrompt(BaseModule):
    """The frozen model's own rows in either place: zero-shot, or the other half of an ablation.

    Args:
        num_prompts: rows; `SEEMPromptHead` gives it for the semantic prompt.
        dim: D; `SEEMPromptHead` gives it.
        source: as in `SpaPrompt`; 'grid' has a zero-shot result of its own. A semantic prompt has
            no use for it.
    """

    def __init__(
        self,
        num_prompts: int = 100,
        dim: int = 512,
        source: str = 'query',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.source, self.source_name = _choose(SOURCES, source, 'source'), source
        self.num_prompts = num_prompts
        rows = num_prompts * self.source.copies
        self.register_buffer('default', torch.zeros(rows, dim), persistent=False)
        self.filled = False

    @property
    def reading(self) -> dict:
        """What the other, learned prompt was trained beside; see `BlendedPrompt`."""
        # Only the points of a grid add tokens; other rows are the frozen model's, however many.
        points = {'num_prompts': self.num_prompts} if self.source.needs_object_tokens else {}
        return {'source': self.source_name, **points}

    @torch.no_grad()
    def fill(self, default: Tensor) -> None:
        """Store the default rows (R, D)."""
        self.default.copy_(default)
        self.filled = True

    def forward(self) -> Tensor:
        """Default rows, (R, D)."""
        return self.default
