"""SAM-CP as a model of MMEngine: backbone, neck and `SAMCPHead`, one pass for all three tasks."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from mmprompt.common.audit import describe_audit
from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import FeatureCache
from mmprompt.common.freeze import freeze
from mmprompt.common.image_groups import image_groups, step_by_size
from mmprompt.common.pretrained import load_pretrained
from mmprompt.common.prompt_file import HEAD_FILE, PromptFile
from mmprompt.methods.samcp.canvas import Canvas
from mmprompt.methods.samcp.clip_pair import check_clip_pair
from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.head import batch_of
from mmprompt.methods.samcp.known_classes import flat, known_among, with_names
from mmprompt.methods.samcp.open_vocabulary import CLIPView, check_view
from mmprompt.methods.samcp.predict import ImageScores, SAMCPPredictor
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.methods.samcp.text import Texts
from mmprompt.registry import MODELS, TASK_UTILS

METHOD = 'SAM-CP'
_BACKBONE = 'backbone.'
_DENOISING = 'head.denoising.'  # rows for the classes of training, which testing does not read


@MODELS.register_module()
class SAMCPDetector(BaseModel):
    """Patches of an image merged into semantic regions, instances and a panoptic map.

    Each image is encoded at its own size, whatever batch it comes in (`image_groups`).

    Args:
        backbone: config of any registered backbone that gives several maps.
        head: of `SAMCPHead`; ``num_classes`` may be left out.
        classes: C names, in the order of the dataset's labels.
        neck: of any registered neck, whose maps have strides as in
            ``head.patch_encoder.strides``; None for a backbone whose maps all have
            ``head.in_channels`` channels.
        frozen_backbone: train neck and head only, on pretrained weights.
        feature_cache: arguments of `FeatureCache`: keep the maps of a frozen backbone.
        open_vocabulary: arguments of `OpenVocabularyScores`: at test the backbone, which is an
            image encoder of CLIP, also says what it sees in the merged masks. None: it does not.
        seen_classes: names of the classes that the weights were trained with, if `open_vocabulary`
            tells unseen ones apart; None: what the file of the weights says. A class is one of
            them if any of its names is.
        data_preprocessor, init_cfg: as in MMSegmentation, whose preprocessor needs no compiled
            operators.
        train_cfg: nothing is read from it.
        test_cfg: arguments of `SAMCPPredictor`.

    Raises:
        ValueError: two numbers of classes, or a cache for maps that change.
        UserError: `open_vocabulary` with a backbone that is no CLIP, or not the CLIP of the texts.
    """

    def __init__(
        self,
        backbone: Mapping,
        head: Mapping,
        classes: Sequence[str],
        neck: Mapping | None = None,
        frozen_backbone: bool = False,
        feature_cache: Mapping | None = None,
        open_vocabulary: Mapping | None = None,
        seen_classes: Sequence[str] | None = None,
        data_preprocessor: Mapping | None = None,
        train_cfg: Mapping | None = None,
        test_cfg: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self._backbone_config = copy.deepcopy(dict(backbone))  # what is built may take it apart
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = MODELS.build({'type': 'SAMCPHead', 'num_classes': len(classes), **head})
        self.predictor = TASK_UTILS.build({'type': 'SAMCPPredictor', **(test_cfg or {})})
        self.classes = tuple(classes)
        if self.head.num_classes != len(classes):
            raise ValueError(
                f'SAMCPDetector has {len(classes)} classes, but head.num_classes is '
                f'{self.head.num_classes}.'
            )
        if feature_cache is not None and not frozen_backbone:
            raise ValueError(
                'SAMCPDetector.feature_cache must be None with frozen_backbone=False: the maps '
                'change at each step.'
            )
        self.frozen_backbone = frozen_backbone
        if frozen_backbone:
            freeze(self.backbone)
        self.open_vocabulary = None
        if open_vocabulary is not None:
            config = {'type': 'OpenVocabularyScores', **open_vocabulary}
            self.open_vocabulary = TASK_UTILS.build(config)
            check_clip_pair(self.backbone, self._backbone_config, self.head.text_config)
        self._named_seen = None if seen_classes is None else tuple(seen_classes)
        self._trained_with: tuple[str, ...] | None = None
        self._cache_config, self._cache = feature_cache, None
        self._expected_views: int | None = None
        self._loaded = False
        self._fingerprint: str | None = None

    # --------------------------------------------------------------- weights
    def init_weights(self) -> None:
        """Begin a training: pretrained weights of a backbone that is trained, and the neck."""
        if not self.frozen_backbone:
            load_pretrained(self.backbone, must_be_whole=False)
        if hasattr(self.neck, 'init_weights'):
            self.neck.init_weights()
        self._is_init = True

    def load_base(self) -> None:
        """Read the embeddings of the classes and the weights of a frozen backbone; once.

        Raises:
            UserError: either cannot be had, or does not fit.
        """
        if self._loaded:
            return
        self.head.load_text(self.classes)
        if self.frozen_backbone:
            load_pretrained(self.backbone, must_be_whole=True)
        self._loaded = True
        print_log(describe_audit(self), logger='current')

    @property
    def base_fingerprint(self) -> str | None:
        """`checkpoint.fingerprint` of the frozen backbone; None if it is trained."""
        if not self.frozen_backbone:
            return None
        self.load_base()
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.backbone.state_dict())
        return self._fingerprint

    def check_dataset(self, metainfo: Mapping) -> None:
        """Compare the classes with a dataset's, order included.

        Raises:
            UserError: naming the first class that differs.
        """
        theirs = tuple(metainfo.get('classes') or ())
        if not theirs or theirs == self.classes:
            return
        pairs = zip((*self.classes, None), (*theirs, None))
        at = next((i for i, (mine, other) in enumerate(pairs) if mine != other), 0)
        mine, other = (names[at] if at < len(names) else None for names in (self.classes, theirs))
        raise UserError(
            f'model.classes: expected those of the dataset, {len(theirs)} with number {at} '
            f'{other!r}, found {len(self.classes)} with number {at} {mine!r}. Give the model the '
            f'names of its data in the same order, and text embeddings of them.'
        )

    # ------------------------------------------------------------ image side
    def extract_feat(self, inputs: Tensor, metas: Sequence[Mapping]) -> ImageFeatures:
        """Pyramids of normalised images (B, 3, H, W), each computed at its own size.

        Args:
            inputs: images in the upper left corner.
            metas: with ``img_shape``; without it an image is the whole of its input.
        """
        return self.encode(inputs, metas)[0]

    def encode(
        self, inputs: Tensor, metas: Sequence[Mapping]
    ) -> tuple[ImageFeatures, list[CLIPView]]:
        """`extract_feat`, and of each image the last map of the backbone."""
        self.load_base()
        groups, views = [], [None] * len(inputs)
        sizes = inputs.new_zeros(len(inputs), 2, dtype=torch.float32)  # bfloat16 has no 1333
        for group in image_groups(inputs, metas):
            levels = self._maps(group.images)
            padded = tuple(group.images.shape[-2:])
            for place, last, size in zip(group.indices, levels[-1], group.sizes):
                views[place] = CLIPView(last, padded, size)
            if self.neck is not None:
                levels = self.neck(levels)
            groups.append((levels, group.indices, padded))
            sizes[group.indices] = sizes.new_tensor(group.sizes)
        return ImageFeatures(groups, sizes), views

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the backbone gives, from the cache if there is one."""
        if not self.frozen_backbone:
            return tuple(self.backbone(images))
        if self._cache_config is None:
            # One by one on a CPU, as for the cache: then no bit depends on the batch.
            parts = images.split(1) if images.device.type == 'cpu' else [images]
            with torch.no_grad():
                return tuple(map(torch.cat, zip(*map(self.backbone, parts))))
        if self._cache is None:
            self._cache = FeatureCache(
                fingerprint=self._feature_fingerprint(), **self._cache_config
            )
            self._cache.expected_views = self._expected_views
        found = self._cache.fetch(
            images, lambda image: {str(i): x for i, x in enumerate(self.backbone(image))}
        )
        return tuple(found[name] for name in sorted(found, key=int))

    def _feature_fingerprint(self) -> str:
        """Of the frozen weights and of the backbone that computes with them."""
        config = {k: v for k, v in self._backbone_config.items() if k != 'init_cfg'}
        text = f'{self.base_fingerprint}\0{json.dumps(config, sort_keys=True, default=repr)}'
        return hashlib.sha256(text.encode()).hexdigest()

    def expect_views(self, count: int | None) -> None:
        """Say how many different inputs will come, for the estimate of the cache."""
        self._expected_views = count

    # ----------------------------------------------------------------- modes
    def forward(
        self, inputs: Tensor, data_samples: Sequence | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | Sequence | SAMCPOutput:
        """Compute losses ('loss'), samples with results ('predict') or `SAMCPOutput` ('tensor').

        Args:
            inputs: (B, 3, H, W) normalised images.
            data_samples: with ``patches``, for losses with ``gt_units``, for results with
                ``patch_set``.
            mode: one of the three.

        Raises:
            UserError: samples are missing or lack something.
            RuntimeError: another mode.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise RuntimeError(f"mode: expected 'loss', 'predict' or 'tensor', found {mode!r}.")
        if data_samples is None:
            raise UserError(
                'SAMCPDetector: expected data samples with patches beside the images, found none. '
                'Make patches first (tools/generate_patches.py) and load them (LoadPatches).'
            )
        return getattr(self, '_forward' if mode == 'tensor' else mode)(inputs, data_samples)

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Losses of a batch; see `SAMCPLoss`."""
        features = self._features(inputs, data_samples)
        self.trained_with(self.classes, self.encoded_names)
        return self.head.loss(features, data_samples)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence) -> Sequence:
        """Add what `test_cfg` asks for to the samples; see `SAMCPPredictor`."""
        features, views = self.encode(inputs, [sample.metainfo for sample in data_samples])
        return self.answer(features, views, data_samples, self.predictor)

    @torch.no_grad()
    def answer(
        self, features: ImageFeatures, views: Sequence, samples: Sequence, predictor: SAMCPPredictor
    ) -> Sequence:
        """`predict`, of images that are encoded, by another predictor."""
        output = self.head(features, batch_of(samples, features))
        if self.open_vocabulary is None:
            return predictor(output, samples)
        texts, seen = (self.head.entries, self.head.entry_class), self._seen()

        def rescore(image: int, scores: ImageScores, canvas: Canvas) -> ImageScores:
            check_view(samples[image], views[image])
            return self.open_vocabulary(
                scores, canvas, predictor.merged, views[image], self.backbone, texts, seen
            )

        return predictor(output, samples, rescore)

    def _forward(self, inputs: Tensor, data_samples: Sequence) -> SAMCPOutput:
        features = self._features(inputs, data_samples)
        return self.head(features, batch_of(data_samples, features))

    def _features(self, inputs: Tensor, data_samples: Sequence) -> ImageFeatures:
        return self.extract_feat(inputs, [sample.metainfo for sample in data_samples])

    def test_step(self, data: dict) -> Sequence:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().test_step, data)

    def val_step(self, data: dict) -> Sequence:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().val_step, data)

    # --------------------------------------------------------------- classes
    def set_classes(
        self, classes: Sequence[str], thing_classes: Sequence[int], texts: Texts | Tensor
    ) -> None:
        """Look for other classes; no weight depends on them.

        Args:
            classes: C names.
            thing_classes: indices of those that have instances.
            texts: their embeddings.

        Raises:
            ValueError: numbers that do not fit each other.
        """
        self.load_base()  # lest the texts of the config take their place
        self.head.set_classes(texts, thing_classes)
        if self.head.num_classes != len(classes):
            raise ValueError(
                f'set_classes: expected embeddings of {len(classes)} classes, found '
                f'{self.head.num_classes}.'
            )
        self.classes = tuple(classes)

    @property
    def encoded_names(self) -> list[list[str]]:
        """Of each class the names whose embeddings it has; its label where nothing says them."""
        return [list(group) for group in self.head.names or [[name] for name in self.classes]]

    def trained_with(
        self, classes: Sequence[str], names: Sequence[Sequence[str]] | None = None
    ) -> None:
        """Note with what classes the weights were trained.

        Args:
            classes: their labels.
            names: of each those that were encoded; None: the labels.
        """
        self._trained_with = flat(classes, names)

    def _seen(self) -> Tensor:
        """(C,) bool: whether training saw a class under one of its names.

        Raises:
            UserError: it matters, and nothing says which classes it saw.
        """
        names = self._trained_with if self._named_seen is None else self._named_seen
        if names is None:
            if self.open_vocabulary.tells_unseen_apart:
                raise UserError(
                    'model.seen_classes: expected the names of the classes that the weights were '
                    'trained with, which open_vocabulary.kappa_unseen needs to know, found None, '
                    'and a file of weights that does not say them. Give their names.'
                )
            names = self.classes
        return torch.tensor(self._known(names), dtype=torch.bool, device=self.head.entries.device)

    def _known(self, names: Sequence[str]) -> list[bool]:
        return known_among(with_names(self.classes, self.head.names), names)

    # ----------------------------------------------------------------- files
    def export_files(self) -> dict[str, PromptFile]:
        """What was learned beside a frozen backbone, by file name; nothing if it was trained."""
        if not self.frozen_backbone:
            return {}
        tensors = {k: v.detach().clone() for k, v in self._learned().items()}
        things = [self.classes[i] for i in self.head.thing_classes.tolist()]
        base = self.base_fingerprint  # reads the names too
        recipe = dict(things=things, names=self.encoded_names)
        file = PromptFile(tensors, METHOD, self.classes, base, recipe, kind='head')
        return {HEAD_FILE: file}

    def load_prompt(self, prompt: PromptFile | str | os.PathLike) -> None:
        """Take over what `export_files` wrote, trained with whatever classes.

        Raises:
            UserError: the file is missing, or of another method, backbone or shape.
        """
        if not isinstance(prompt, PromptFile):
            prompt = PromptFile.load(prompt, kinds=('head',))
        compared = {k: v for k, v in prompt.tensors.items() if not k.startswith(_DENOISING)}
        learned = {k: v for k, v in self._learned().items() if not k.startswith(_DENOISING)}
        replace(prompt, tensors=compared).check(
            base_fingerprint=self.base_fingerprint,
            classes=None,
            shapes={k: tuple(v.shape) for k, v in learned.items()},
            method=METHOD,
        )
        state = self.state_dict()
        self.load_state_dict(state | {k: v for k, v in prompt.tensors.items() if k in state})
        self.trained_with(prompt.classes, prompt.recipe.get('names'))
        if tuple(prompt.classes) != self.classes:
            print_log(
                f'{prompt.path or HEAD_FILE}: trained with {len(prompt.classes)} classes; '
                f'{sum(self._known(self._trained_with))} of the {len(self.classes)} of '
                f'model.classes are among them by name.',
                logger='current',
            )

    def _learned(self) -> dict[str, Tensor]:
        """State of neck and head by the names of the whole."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(_BACKBONE)}
