"""A frozen backbone with prompts between its stages (Fig. 1)."""

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.class_prior import check_prior_classes, read_named_prior
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.pretrained import load_pretrained, without_pretrained
from mmprompt.methods.spm.adapters import build_adapters
from mmprompt.methods.spm.lean import lean_graph
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
            JSON file that ``tools/class_prior.py`` wrote; None, or a file that is not there, is
            uniform.
        prompter: config of the matchers, or one config for each place; ``in_channels`` and
            ``num_classes`` are filled in.
        tuning: 'spm'; 'head', frozen without prompts; 'full', trained without prompts; 'scratch',
            the same without pretrained weights; 'vpt', 'adaptformer' or 'lora', frozen with
            `adapters` in a Vision Transformer.
        adapter: arguments of the adapters, besides their type, for the last three.
        in_channels: channels at each place, to be compared with what the probe finds.
        probe_size: height and width of the input on which the backbone is tried once, when this is
            built, to see the shapes of its features; unequal ones tell maps from channel-last ones.
        pretrained: file or address of the wrapped backbone's weights, in place of its
            ``init_cfg``; `EncoderDecoder.pretrained` is handed on by this name.
        init_cfg: the same as a whole: in place of the wrapped backbone's ``init_cfg``.

    Raises:
        UserError: an unknown place, tuning or file; the message lists the places there are.
        ValueError: numbers of classes, channels or matchers that do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        prompt_at: Sequence[str],
        num_classes: int,
        class_prior: Sequence[float] | str | os.PathLike | None = None,
        prompter: dict | Sequence[dict] = MATCHER,
        tuning: str = 'spm',
        adapter: dict | None = None,
        in_channels: Sequence[int] | None = None,
        probe_size: tuple[int, int] = (64, 96),
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if tuning not in FROZEN + TRAINED:
            raise UserError(
                f'SPMBackbone.tuning: expected one of {", ".join(FROZEN + TRAINED)}, found '
                f'{tuning!r}. Give one of these (--cfg-options model.backbone.tuning=spm).'
            )
        self.tuning, self.num_classes = tuning, num_classes
        backbone = copy.deepcopy(dict(backbone))
        if pretrained is not None:
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        if init_cfg is not None:
            backbone['init_cfg'] = init_cfg
        if tuning == 'scratch':
            backbone = without_pretrained(backbone)
        self.backbone: nn.Module = MODELS.build(backbone)
        # What reads its weights while it is built (timm's models) says so.
        self._came_with_weights = bool(getattr(self.backbone, '_is_init', False))
        if tuning in FROZEN:
            freeze(self.backbone)
        self.prompt_at = tuple(prompt_at) if tuning == 'spm' else ()
        self._layouts: dict[str, Layout] = {}
        if self.prompt_at:
            colours = backbone.get('in_channels', 3)
            self._layouts = probe(self.backbone, self.prompt_at, (colours, *probe_size))
        self._check_channels(in_channels)
        self.matchers = self._build_matchers(prompter)
        self.adapters = self._build_adapters(adapter)
        #: Names that a file of the class prior must have; known to whoever knows the data.
        self.classes: Sequence[str] | None = None
        self._prior = class_prior
        self._prior_names: Sequence[str] | None = None
        uniform = torch.full((num_classes,), 1 / num_classes)
        self.register_buffer('class_prior', uniform, persistent=bool(self.prompt_at))
        self._prior_known = False
        self._base_loaded = False
        self._weights_restored = False
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
        return build_adapters(self.backbone, dict(adapter or {}, type=ADAPTERS[self.tuning]))

    # --------------------------------------------------------------- weights
    def init_weights(self) -> None:
        """Read the pretrained weights; initialise matchers by their ``init_cfg`` if they have one.

        What needs no ``init_cfg`` was initialised when it was built.
        """
        self.load_base()
        for part in (*self.matchers, *(self.adapters or ())):
            if hasattr(part, 'init_weights') and not getattr(part, 'is_init', False):
                part.init_weights()
        self._is_init = True

    def load_base(self) -> None:
        """Read pretrained weights and class prior, once; what a state dict gave before stays.

        Raises:
            UserError: a file is missing or does not fit; parameters of a frozen backbone that its
                file does not hold.
        """
        if self._base_loaded:
            return
        self._base_loaded = True
        if not self._weights_restored and not self._came_with_weights:
            load_pretrained(
                self.backbone,
                self.tuning in FROZEN,
                wanted=self.tuning != 'scratch',
                key='model.backbone.backbone',
            )
        if self.prompt_at and not self._prior_known:
            self._read_prior()

    def _read_prior(self) -> None:
        prior = self._prior
        if isinstance(prior, (str, os.PathLike)):
            if not Path(prior).is_file():
                return
            self._prior_names, prior = read_named_prior(prior)
            self.check_prior(self.classes)
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

    def check_prior(self, classes: Sequence[str] | None) -> None:
        """Compare the names in the file of the class prior with others, if one was read.

        Raises:
            UserError: other classes, or in another order.
        """
        if self._prior_names is not None:
            check_prior_classes(self._prior, self._prior_names, self.num_classes, classes)

    def _take_unwrapped(self, state: dict, prefix: str, *_: Any) -> None:
        """Keys of the backbone without the wrapper become those of the wrapped one."""
        for name in self.backbone.state_dict():
            if (plain := prefix + name) in state:
                state[f'{prefix}backbone.{name}'] = state.pop(plain)
        names = dict(self.backbone.named_parameters())
        self._weights_restored |= all(f'{prefix}backbone.{name}' in state for name in names)
        if prefix + 'class_prior' in state:
            self._prior_known, self._prior_names = True, None

    def backbone_state_dict(self) -> dict[str, Tensor]:
        """State dict of the wrapped backbone by its own names, as if there were no wrapper."""
        return self.backbone.state_dict()

    # --------------------------------------------------------------- forward
    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> what the wrapped backbone returns.

        Raises:
            UserError: a size whose tokens cannot be laid out as a map; a replica of
                `nn.DataParallel`.
        """
        if getattr(self, '_is_replica', False):
            raise UserError(
                'SPMBackbone: expected one process for each GPU, found a replica of '
                'torch.nn.DataParallel, which would run without its prompts. Start the processes '
                'with torchrun (docs/distributed.md).'
            )
        self.load_base()
        if not self.prompt_at:
            return self.backbone(images)
        self._warn_of_uniform_prior()
        prior = self.class_prior.to(images.dtype)[None, :, None, None]
        self._flow = _Flow(tuple(images.shape[-2:]), prior)
        try:
            with lean_graph(self.backbone) if self.training else nullcontext():
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

        Raises:
            UserError: tokens that cannot be laid out as a map; a backward that runs the module
                again.
        """
        flow = self._flow
        if flow is None:
            self._refuse_recomputation(index)
            return value
        layout = self._layouts[self.prompt_at[index]]
        feature = layout.to_map(value, layout.grid(value, others, flow.image))
        # M_0 is the same everywhere and stays a map of one cell.
        semantic = flow.semantic.expand(feature.shape[0], -1, *flow.semantic.shape[2:])
        prompt, flow.semantic, logits = self.matchers[index](feature, semantic.to(feature.dtype))
        flow.logits.append(logits)
        return layout.add(value, prompt)

    def _refuse_recomputation(self, index: int) -> None:
        """Without the maps of its forward, a checkpointed module would go on without a prompt."""
        if torch._C._current_graph_task_id() != -1:
            raise UserError(
                f'prompt_at: expected modules that run in the forward alone, found '
                f'{self.prompt_at[index]!r} inside activation checkpoints, which run it again in '
                f'the backward. Switch them off (with_cp=False) or prompt before a module that is '
                f'outside them.'
            )

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Collect the logits of the interim maps M_i, (B, s, h_i, w_i), of the forwards inside."""
        outer, record = self._record, []
        self._record = record
        try:
            yield record
        finally:
            self._record = outer
            if outer is not None:
                outer.extend(record)

    def _warn_of_uniform_prior(self) -> None:
        if not self._prior_known:
            self._prior_known = True
            which = 'no class prior' if self._prior is None else f'no file {self._prior}'
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
