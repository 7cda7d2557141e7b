"""SSPrompt as a segmentor: frozen base, feature cache and prompt file around `SEEMPromptHead`."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmprompt.common.audit import describe_audit, trained_parameters
from mmprompt.common.checkpoint import resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import FeatureCache
from mmprompt.common.freeze import freeze, frozen_roots, under_roots
from mmprompt.common.image_groups import padded
from mmprompt.common.prompt_file import PROMPT_FILE, PromptFile
from mmprompt.common.text_bank import Names, TextBank
from mmprompt.foundation.seem import SEEMFeatures
from mmprompt.foundation.seem.architecture import architecture, check_architecture
from mmprompt.foundation.seem.checkpoint import check_fit, read_base
from mmprompt.foundation.seem.class_names import encode_names, fitting_text_bank
from mmprompt.foundation.seem.templates import seem_templates
from mmprompt.methods.ssprompt.head import is_trained, read_configs
from mmprompt.methods.ssprompt.imagewise import ImagewiseSegmentor
from mmprompt.methods.ssprompt.methods import choose, closed_form
from mmprompt.methods.ssprompt.prompts import DefaultPrompt
from mmprompt.registry import MODELS

HEAD = 'decode_head.'
# Where the parts of a base file go.
PLACES = dict(backbone='backbone', pixel_decoder=HEAD + 'pixel_decoder', decoder=HEAD + 'decoder')
# The text encoder is kept only by prompts that learn words.
TEXT_PLACE = dict(text_encoder=HEAD + 'semantic_prompt.text_encoder')


@MODELS.register_module()
class SSPromptSegmentor(ImagewiseSegmentor):
    """A frozen SEEM and two prompts, of which up to four tensors are trained (Eq. 9).

    Building it reads no file. The base is read by `load_base`: by `FrozenBaseHook` before a run, or
    at the first forward. The text encoder of the base exists only while it encodes the class names.

    Args:
        backbone: config of the frozen backbone, four maps at strides 4 to 32.
        decode_head: config of `SEEMPromptHead`; ``num_classes`` may be left out.
        classes: C names, in the order of the dataset's labels.
        base: the frozen weights: path of a base file or of a public SEEM checkpoint, or
            ``mmprompt://NAME``.
        base_address: where a missing base can be had; part of the error.
        method: a name of `methods.METHODS`, such as 'coop', which then decides what is learned
            in place of the configs of both prompts and of ``decode_head.tune``; None leaves it to
            these.
        texts: what stands for each class in the text encoder, a name or a list of synonyms; the
            class names if None. A `decode_head.text_bank` takes the place of texts and templates.
        templates: sentences around the names; SEEM's 81 if None, ('{}',) for bare names.
        feature_cache: arguments of `FeatureCache`, for images that are seen more than once.
        expected_parameters: the audited number of trained parameters, or a dict of such numbers by
            method, of which that of the present method counts; another number is an error. A named
            ``method`` is held to its closed form as well.
        test_cfg: ``mode``, 'whole' or 'slide' with ``crop_size`` and ``stride``, as in
            MMSegmentation; ``keep_scores``: whether a result holds the scores ``seg_logits``
            (C, H, W) beside the label map, without it up to 512 MiB of float32; ``semantic``,
            ``panoptic`` and ``instances``: what a result holds, without them the label map and what
            ``decode_head.task`` is about; ``score_threshold``, ``overlap_threshold`` and ``top_k``
            of `mask_merge`.
        data_preprocessor, train_cfg, init_cfg: as in MMSegmentation.

    Raises:
        ValueError: two numbers of classes, another number of trained parameters than expected, or
            a cache for features that change.
        UserError: there is no such method.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        classes: Sequence[str],
        base: str,
        base_address: str | None = None,
        method: str | None = None,
        texts: Names | None = None,
        templates: Sequence[str] | None = None,
        feature_cache: dict | None = None,
        expected_parameters: int | Mapping[str, int] | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        decode_head = {'num_classes': len(classes), **decode_head}
        if method is not None:
            given = dict(decode_head=decode_head, templates=templates, feature_cache=feature_cache)
            given.update(choose(method, given))
            decode_head, templates, feature_cache = given.values()
        # Before building: what is built may take its config apart.
        parts = copy.deepcopy({'backbone': backbone, **decode_head})
        super().__init__(
            backbone=backbone,
            decode_head=decode_head,
            train_cfg=ConfigDict(train_cfg or {}),
            test_cfg=ConfigDict(test_cfg or dict(mode='whole')),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if self.decode_head.tune != 'full':
            freeze(self.backbone)
        self._part_configs = {part: parts[part] for part in self._places()}
        self.classes = tuple(classes)
        self.base, self.base_address = base, base_address
        self.texts = self.classes if texts is None else texts
        self.templates = templates
        self.base_fingerprint: str | None = None
        self._cache_config = feature_cache
        self._cache: FeatureCache | None = None
        self._expected_views: int | None = None
        # Tuned tensors that a state dict gave before the base was read, which then leaves them.
        self._restored: set[str] = set()
        if feature_cache is not None and self.decode_head.tune == 'full':
            raise ValueError(
                "SSPromptSegmentor.feature_cache must be None with decode_head.tune='full': the "
                'features change at each step.'
            )
        self._check_numbers(expected_parameters, method)

    def _check_numbers(self, expected: int | Mapping | None, method: str | None) -> None:
        for name, found in (
            ('decode_head.num_classes', self.num_classes),
            ('the number of texts', len(self.texts)),
        ):
            if found != len(self.classes):
                raise ValueError(
                    f'SSPromptSegmentor has {len(self.classes)} classes, but {name} is {found}.'
                )
        if isinstance(expected, Mapping):
            expected = expected.get(method or self.method.lower().removesuffix(' tuning'))
        found = sum(trained_parameters(self).values())
        form = None if method is None else closed_form(method, self.decode_head)
        for name, number in (('expected_parameters', expected), (f'method={method!r}', form)):
            if number is not None and found != number:
                raise ValueError(
                    f'SSPromptSegmentor: {name} is {number:,}, but {found:,} would be trained. '
                    f'Correct the prompts or the number.\n{describe_audit(self)}'
                )

    # ------------------------------------------------------------ frozen base
    def init_weights(self) -> None:
        """Nothing: what is frozen comes from the base file, and prompts start from it."""
        self._is_init = True

    def load_base(self) -> None:
        """Fill the frozen part and the default prompts from the base file; once.

        Raises:
            UserError: the base is missing, damaged or of another architecture, or its text encoder
                does not know a word.
        """
        if self.decode_head.filled:
            return
        path = self._base_path()
        tensors, metadata = read_base(path)
        check_architecture(
            self._part_configs,
            self._modules_of_base(),
            metadata['config'],
            str(path),
            dict(pixel_decoder=HEAD, decoder=HEAD, text_encoder=HEAD),
        )
        self._copy(tensors, str(path))
        bank = self._text_bank(tensors, metadata)
        self.decode_head.fill(bank.embeddings, self.texts)
        self.base_fingerprint = metadata['fingerprint']
        print_log(f'base {path}, {describe_audit(self)}', 'current')

    def _text_bank(self, tensors: Mapping[str, Tensor], metadata: Mapping) -> TextBank:
        given = self.decode_head.text_bank
        if given is None:
            return encode_names(self.texts, tensors, metadata, self.templates)
        bank = fitting_text_bank(given, self.classes, metadata)
        self.texts = bank.names  # what a prompt file will say it was learned on
        self.templates = None if tuple(bank.templates) == seem_templates() else bank.templates
        return bank

    def _base_path(self) -> os.PathLike:
        try:
            return resolve_weights(self.base)
        except UserError as error:
            if self.base_address is None:
                raise
            raise UserError(f'{error} This base comes from {self.base_address}.') from error

    def _modules_of_base(self) -> dict[str, nn.Module]:
        """By their names in a base file, each with its place in this model."""
        return {part: self.get_submodule(place) for part, place in self._places().items()}

    def _places(self) -> dict[str, str]:
        reads = getattr(self.decode_head.semantic_prompt, 'needs_text_encoder', False)
        return PLACES | (TEXT_PLACE if reads else {})

    def _feature_fingerprint(self) -> str:
        """Of the frozen weights and of what computes features with them (SHA-256, hex)."""
        modules = self._modules_of_base()
        parts = {
            part: architecture(self._part_configs[part], type(modules[part]))
            for part in ('backbone', 'pixel_decoder')
        }
        text = f'{self.base_fingerprint}\0{json.dumps(parts, sort_keys=True)}'
        return hashlib.sha256(text.encode()).hexdigest()

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Strict in-place copy, so that references to parameters (optimisers) stay valid."""
        places, given = self._places(), {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition('.')
            if part in places:
                given[f'{places[part]}.{rest}'] = tensor
        own = {k: v for k, v in self.state_dict().items() if under_roots(k, [*places.values()])}
        check_fit(own, given, source)
        for name, tensor in own.items():
            if name not in self._restored:
                tensor.copy_(given[name])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        self._restored |= {k for k in self._learned() if prefix + k in state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def check_dataset(self, metainfo: Mapping) -> None:
        """Compare the classes with a dataset's, order included.

        Raises:
            UserError: naming the first class that differs.
        """
        theirs = tuple(metainfo.get('classes') or ())
        if not theirs or theirs == self.classes:
            return
        shared = min(len(theirs), self.num_classes)
        at = next((i for i in range(shared) if theirs[i] != self.classes[i]), shared)
        raise UserError(
            f"model.classes differ from the dataset's: class {at} is "
            f'{_item(self.classes, at)} in the model and {_item(theirs, at)} in the dataset '
            f'({len(self.classes)} and {len(theirs)} classes). Give both the same names in the '
            f'same order.'
        )

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One step of training.

        Raises:
            UserError: nothing is learned here.
        """
        if not is_trained(self):
            raise UserError(
                f'Nothing is trained: the method is {self.method}. Measure it with tools/test.py, '
                f'or choose a method that learns (--cfg-options model.method=ssprompt).'
            )
        return super().train_step(data, optim_wrapper)

    # ------------------------------------------------------------ image side
    def extract_feat(self, inputs: Tensor) -> SEEMFeatures:
        """Normalised images (B, 3, H, W) -> features of the decoder, without a graph.

        What is not a multiple of 32 is padded with zeros at the right and bottom.
        """
        self.load_base()
        inputs = padded(inputs)  # before the cache, whose keys are what the network sees
        if self._cache_config is None:
            return self._encode(inputs)
        if self._cache is None:
            fingerprint = self._feature_fingerprint()
            self._cache = FeatureCache(fingerprint=fingerprint, **self._cache_config)
            self._cache.expected_views = self._expected_views
        maps = self._cache.fetch(inputs, lambda images: self._encode(images).as_dict())
        return SEEMFeatures.from_dict(maps)

    def expect_views(self, count: int | None) -> None:
        """Say how many different inputs will come, for the estimate of the cache."""
        self._expected_views = count

    def _encode(self, inputs: Tensor) -> SEEMFeatures:
        graph = torch.is_grad_enabled() and is_trained(self.backbone)
        # One by one on a CPU, in less memory and up to 10 % more time: then no bit of a feature
        # depends on the batch, and losses are the same with the cache, which encodes one by one.
        alone = not graph and inputs.device.type == 'cpu'
        parts = []
        for images in inputs.split(1) if alone else [inputs]:
            with torch.set_grad_enabled(graph):
                maps = self.backbone(images)
            parts.append(self.decode_head.encode(maps))
        return SEEMFeatures.joined(parts) if alone else parts[0]

    # ------------------------------------------------------------ prompt file
    @property
    def method(self) -> str:
        """Name of what is learned: 'SSPrompt' for both its prompts, else the prompts' classes.

        'head tuning' and 'full tuning' where the base is trained.
        """
        prompts = (self.decode_head.spatial_prompt, self.decode_head.semantic_prompt)
        learned = [type(p).__name__ for p in prompts if not isinstance(p, DefaultPrompt)]
        if learned == ['SpaPrompt', 'SemPrompt']:
            learned = ['SSPrompt']
        tuned = [] if self.decode_head.tune == 'prompts' else [f'{self.decode_head.tune} tuning']
        return ' + '.join(learned + tuned) or 'zero-shot'

    def _learned(self) -> dict[str, Tensor]:
        """Everything outside the frozen roots, by the names of a state dict."""
        roots = frozen_roots(self)
        return {k: v for k, v in self.state_dict().items() if not under_roots(k, roots)}

    def _learned_by_short_names(self) -> dict[str, Tensor]:
        return {k.removeprefix(HEAD): v for k, v in self._learned().items()}

    def _text_recipe(self) -> dict:
        texts = [t if isinstance(t, str) else list(t) for t in self.texts]
        return dict(texts=texts, templates=self.templates and list(self.templates))

    def export_files(self) -> dict[str, PromptFile]:
        """What was learned, ready to be saved, by file name; none if both are DefaultPrompt."""
        self.load_base()
        tensors = {k: v.detach().clone() for k, v in self._learned_by_short_names().items()}
        if not tensors:
            return {}
        recipe = dict(
            self.decode_head.prompt_configs,
            task=self.decode_head.task.name,
            reading=self.decode_head.reading,
            text=self._text_recipe(),
        )
        if things := self.decode_head.thing_classes:
            recipe['things'] = [self.classes[index] for index in things]
        file = PromptFile(tensors, self.method, self.classes, self.base_fingerprint, recipe)
        return {PROMPT_FILE: file}

    def load_prompt(self, prompt: PromptFile | str | os.PathLike) -> None:
        """Take over the tensors of a prompt file.

        A prompt learned for another task is welcome: the tensors mean the same in all three.

        Raises:
            UserError: it is no prompt file, or of another method, base, class list, shape or
                reading (what a tensor replaces and how it is blended).
        """
        if not isinstance(prompt, PromptFile):
            prompt = PromptFile.load(prompt)
        self.load_base()
        shapes = {k: tuple(v.shape) for k, v in self._learned_by_short_names().items()}
        prompt.check(
            base_fingerprint=self.base_fingerprint,
            classes=self.classes,
            shapes=shapes,
            method=self.method,
        )
        self._check_reading(prompt)
        text = prompt.recipe.get('text', self._text_recipe())
        if text != self._text_recipe():
            raise UserError(
                f'{prompt.path or "prompt"}: expected a prompt learned on the texts and templates '
                f'of the config, {self._text_recipe()}, found {text}. Use the config that trained '
                f'it.'
            )
        tensors = {
            k if k.startswith('backbone.') else HEAD + k: v for k, v in prompt.tensors.items()
        }
        self.load_state_dict(tensors, strict=False)

    def _check_reading(self, prompt: PromptFile) -> None:
        """Equal tensors mean something else in another place, or blended in another way."""
        found = prompt.recipe.get('reading')
        if found is None:  # then its configs say it
            found = read_configs(prompt.recipe)
        for part, own in self.decode_head.reading.items():
            theirs = found.get(part) or {}
            for key in (k for k in own | theirs if own.get(k) != theirs.get(k)):
                raise UserError(
                    f'{prompt.path or "prompt"}: expected a prompt learned with {part}.{key} '
                    f'{own.get(key)!r}, as the config says, found {theirs.get(key)!r}. Use the '
                    f'config that trained it.'
                )


def _item(names: Sequence[str], index: int) -> str:
    return repr(names[index]) if index < len(names) else 'missing'
