"""A frozen backbone with prompts between its stages (Fig. 1)."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.class_prior import read_class_prior
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.methods.spm.pretrained import load_pretrained, without_pretrained
from mmprompt.methods.spm.stages import OUT, Layout, last_map, probe, replace_last_map
from mmprompt.registry import MODELS

#: The tuning modes; the first four are the paper's.
FROZEN = ('spm', 'head', 'vpt', 'adaptformer', 'lora')
TRAINED = ('full', 'scratch')
MATCHER = dict(type='SPM')
ADAPTERS = dict(vpt='VPT', adaptformer='AdaptFormer', lora='LoRA')


@MODELS.register_module()
class SPMBackbone(BaseModule):
    """Any registered backbone, frozen, with a prompt matcher before chosen modules of it (Eq. 2).

    It stands wherever a backbone stands and returns what the wrapped one returns, of the same
    types and shapes. The wrapped backbone, ``backbone``, is not touched: its class, the names of
    its parameters and their bytes stay, and its modules, called by themselves, know nothing of
    prompts. Checkpoints of the backbone, and of a segmentor or detector that had it without the
    wrapper, load unchanged.

    The output of each stage leaves the backbone as the stage made it; a prompt changes what the
    next stage sees. Only `OUT` changes what is returned: the last map.

    Args:
        backbone: config of the wrapped backbone. Pretrained weights are named in its ``init_cfg``.
        prompt_at: names of its modules, in the order in which they run, before each of which a
            prompt is added, for example ``['layer1', 'layer3.7', 'out']``; 'out' is the place
            behind the last one, before the head.
        num_classes: s, semantic categories.
        class_prior: M_0, the s category frequencies of the training labels, or the path of the
            JSON file that ``tools/class_prior.py`` wrote; None, or a file that is
            not there, is uniform.
        prompter: config of the matchers, or one config for each place; ``in_channels`` and
            ``num_classes`` are filled in.
        tuning: 'spm'; 'head', frozen without prompts; 'full', trained without prompts; 'scratch',
            the same without pretrained weights; 'vpt', 'adaptformer' or 'lora', frozen with
            `adapters` in a Vision Transformer.
        adapter: arguments of the adapters, besides their type, for the last three.
        in_channels: channels at each place, which spares the probe the guess.
        probe_size: height and width of the input on which the backbone is tried once, when this is
            built, to see the shapes of its features; unequal ones tell maps from channel-last ones.

    Raises:
        UserError: an unknown place, tuning or file; the message lists the places there are.
        ValueError: numbers of classes, channels or matchers that do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        prompt_at: Sequence[str],
        num_classes: int,
        class_prior: Sequence[float] | str | None = None,
        prompter: dict | Sequence[dict] = MATCHER,
        tuning: str = 'spm',
        adapter: dict | None = None,
        in_channels: Sequence[int] | None = None,
        probe_size: tuple[int, int] = (64, 96),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if tuning not in FROZEN + TRAINED:
            raise UserError(
                f'SPMBackbone.tuning: expected one of {", ".join(FROZEN + TRAINED)}, found '
                f'{tuning!r}. Give one of these (--cfg-options model.backbone.tuning=spm).'
            )
        self.tuning, self.num_classes = tuning, num_classes
        backbone = copy.deepcopy(backbone)
        self.backbone: nn.Module = MODELS.build(
            without_pretrained(backbone) if tuning == 'scratch' else backbone
        )
        if tuning in FROZEN:
            freeze(self.backbone)
        self.prompt_at = tuple(prompt_at) if tuning == 'spm' else ()
        self._layouts = probe(self.backbone, self.prompt_at, probe_size) if self.prompt_at else {}
        self._check_channels(in_channels)
        self.matchers = self._build_matchers(prompter)
        self.adapters = self._build_adapters(adapter)
        self._prior = class_prior
        uniform = torch.full((num_classes,), 1 / num_classes)
        self.register_buffer('class_prior', uniform, persistent=bool(self.prompt_at))
        self._prior_known = False
        self._base_loaded = False
        self._flow: _Flow | None = None
        self._record: list[Tensor] | None = None
        for index, name in enumerate(self.prompt_at):
            if name != OUT:
                stage = self.backbone.get_submodule(name)
                stage.register_forward_pre_hook(_PromptBefore(self, index))
        self._register_load_state_dict_pre_hook(self._take_unwrapped)

    # -------------------------------------------------------------- building
    def _check_channels(self, given: Sequence[int] | None) -> None:
        found = [layout.channels for layout in self._layouts.values()]
        if given is not None and self.prompt_at and list(given) != found:
            raise ValueError(
                f'SPMBackbone.in_channels: expected {found} at {list(self.prompt_at)}, found '
                f'{list(given)}. Leave it out, or correct it.'
            )

    def _build_matchers(self, prompter: dict | Sequence[dict]) -> nn.ModuleList:
        if isinstance(prompter, Mapping):
            prompter = [prompter] * len(self.prompt_at)
        elif self.prompt_at and len(prompter) != len(self.prompt_at):
            raise ValueError(
                f'SPMBackbone.prompter: expected one config, or one for each of the '
                f'{len(self.prompt_at)} places {list(self.prompt_at)}, found {len(prompter)}.'
            )
        matchers = nn.ModuleList()
        for config, layout in zip(prompter, self._layouts.values()):
            numbers = dict(in_channels=layout.channels, num_classes=self.num_classes)
            matchers.append(MODELS.build({**copy.deepcopy(dict(config)), **numbers}))
        return matchers

    def _build_adapters(self, adapter: dict | None) -> nn.ModuleList | None:
        if self.tuning not in ADAPTERS:
            return None
        from mmprompt.methods.spm.adapters import build_adapters

        return build_adapters(self.backbone, dict(adapter or {}, type=ADAPTERS[self.tuning]))

    # --------------------------------------------------------------- weights
    def init_weights(self) -> None:
        """Read the pretrained weights; matchers were initialised when they were built."""
        self.load_base()
        self._is_init = True

    def load_base(self) -> None:
        """Read pretrained weights and class prior, once.

        Raises:
            UserError: a file is missing or does not fit; parameters of a frozen backbone that its
                file does not hold.
        """
        if self._base_loaded:
            return
        self._base_loaded = True
        load_pretrained(self.backbone, must_be_whole=self.tuning != 'scratch')
        if self.prompt_at:
            self._read_prior()

    def _read_prior(self) -> None:
        prior = self._prior
        if isinstance(prior, str):
            prior = read_class_prior(prior, self.num_classes) if Path(prior).is_file() else None
        if prior is None:
            return
        values = torch.as_tensor(list(prior), dtype=torch.float64)
        fits = values.shape == (self.num_classes,) and bool((values >= 0).all())
        if not fits or not abs(float(values.sum()) - 1) < 1e-4:
            raise UserError(
                f'model.backbone.class_prior: expected {self.num_classes} frequencies that sum to '
                f'1, found {len(values)} that sum to {float(values.sum()):g}. Count them with '
                f'tools/class_prior.py.'
            )
        self.class_prior.copy_(values)
        self._prior_known = True

    def _take_unwrapped(self, state: dict, prefix: str, *_: Any) -> None:
        """Keys of the backbone without the wrapper become those of the wrapped one."""
        for name in self.backbone.state_dict():
            if (plain := prefix + name) in state:
                state[f'{prefix}backbone.{name}'] = state.pop(plain)

    def backbone_state_dict(self) -> dict[str, Tensor]:
        """State dict of the wrapped backbone by its own names, as if there were no wrapper."""
        return self.backbone.state_dict()

    # --------------------------------------------------------------- forward
    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> what the wrapped backbone returns.

        Raises:
            UserError: a size whose tokens cannot be laid out as a map.
        """
        self.load_base()
        if not self.prompt_at:
            return self.backbone(images)
        if self.training:
            self._warn_of_uniform_prior()
        prior = self.class_prior.to(images.dtype)[None, :, None, None]
        self._flow = _Flow(tuple(images.shape[-2:]), prior)
        try:
            result = self.backbone(images)
            if self.prompt_at[-1] == OUT:
                prompted = self.prompt(len(self.prompt_at) - 1, last_map(result))
                result = replace_last_map(result, prompted)
            if self._record is not None:
                self._record.extend(self._flow.logits)
        finally:
            self._flow = None
        return result

    def prompt(self, index: int, value: Tensor, others: Sequence[Any] = ()) -> Tensor:
        """Add the prompt of one place to what the module there is given (Eqs. 1 and 2).

        Args:
            index: into ``prompt_at``.
            value: F_{i-1}, as a map (B, C, h, w), channel-last map or sequence of tokens.
            others: the further arguments of the module.

        Returns:
            F_{i-1} + P_i, shaped like `value`. Outside a forward of the wrapper: `value`.
        """
        flow = self._flow
        if flow is None:
            return value
        layout: Layout = self._layouts[self.prompt_at[index]]
        feature = layout.to_map(value, layout.grid(value, others, flow.image))
        semantic = flow.semantic.expand(len(feature), -1, *(flow.semantic.shape[2:]))
        if not flow.logits:  # M_0 is the same everywhere, whatever the size
            semantic = semantic.expand(-1, -1, *feature.shape[-2:])
        prompt, flow.semantic, logits = self.matchers[index](feature, semantic.to(feature.dtype))
        flow.logits.append(logits)
        return layout.add(value, prompt)

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Collect the logits of the interim maps M_i, (B, s, h_i, w_i), of the forwards inside."""
        self._record = record = []
        try:
            yield record
        finally:
            self._record = None

    def _warn_of_uniform_prior(self) -> None:
        if not self._prior_known:
            self._prior_known = True
            which = f'no file {self._prior}' if isinstance(self._prior, str) else 'no class prior'
            print_log(
                f'SPMBackbone: there is {which}, so M_0 is uniform. Count the categories of the '
                f'training labels with tools/class_prior.py CONFIG and name the file it writes in '
                f'model.backbone.class_prior.',
                logger='current',
                level=logging.WARNING,
            )


class _Flow:
    """What passes from one matcher to the next during a forward."""

    def __init__(self, image: tuple[int, int], prior: Tensor) -> None:
        self.image = image
        self.semantic = prior  # M_{i-1}, (1 or B, s, h, w)
        self.logits: list[Tensor] = []


class _PromptBefore:
    """The forward pre-hook of one place; an object, so that deepcopy and pickle follow it."""

    def __init__(self, wrapper: SPMBackbone, index: int) -> None:
        self.wrapper, self.index = wrapper, index

    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        return (self.wrapper.prompt(self.index, args[0], args[1:]), *args[1:])
