"""The losses around a prompted backbone (Eq. 5), what is saved, and what is counted."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmseg.models import EncoderDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import HEAD_FILE, PROMPT_FILE, PromptFile
from mmprompt.methods.spm.backbone import FROZEN, SPMBackbone
from mmprompt.methods.spm.resized_loss import resized_loss
from mmprompt.registry import MODELS

CROSS_ENTROPY = dict(type='mmseg.CrossEntropyLoss')
GROUPS = ('backbone', 'prompt', 'head')
_WRAPPED = 'backbone.backbone.'
_PROMPT = 'backbone.'


@MODELS.register_module()
class SPMSegmentor(EncoderDecoder):
    """An EncoderDecoder over `SPMBackbone`: loss = CE(M) + sum of a_i CE(M_i) (Eq. 5).

    Args:
        backbone: config of `SPMBackbone`, whose ``tuning`` says what is trained.
        decode_head: as in MMSegmentation.
        classes: names of the categories; those of the training data if None.
        interim_weights: a_i, one number for all interim maps or one for each. 0 everywhere is the
            paper's ablation without semantic guidance.
        interim_loss: config of the loss on an interim map, whose logits are resized to the labels.
        expected_parameters: trained parameters by tuning mode and group, for example
            ``dict(spm=dict(backbone=0, prompt=5_717_450, head=23_150_742))``; other numbers are an
            error, a mode that is not there is not checked.
        paper_parameters: the same in millions, as a paper prints them; shown beside, not checked.
        neck, auxiliary_head, train_cfg, test_cfg, data_preprocessor, pretrained, init_cfg: as in
            MMSegmentation.

    Raises:
        ValueError: a backbone that is no SPMBackbone, numbers of weights, classes or parameters
            that do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        classes: Sequence[str] | None = None,
        interim_weights: float | Sequence[float] = 0.4,
        interim_loss: dict = CROSS_ENTROPY,
        expected_parameters: Mapping[str, Mapping[str, int]] | None = None,
        paper_parameters: Mapping[str, Mapping[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, decode_head=decode_head, **kwargs)
        if not isinstance(self.backbone, SPMBackbone):
            raise ValueError(
                f'SPMSegmentor.backbone: expected an SPMBackbone, found '
                f'{type(self.backbone).__name__}. Wrap it: '
                f"backbone=dict(type='SPMBackbone', backbone=…, prompt_at=[…], num_classes=…)."
            )
        if self.backbone.num_classes != self.decode_head.num_classes:
            raise ValueError(
                f'SPMSegmentor: expected as many classes in backbone.num_classes as in '
                f'decode_head.num_classes, found {self.backbone.num_classes} and '
                f'{self.decode_head.num_classes}.'
            )
        if classes is not None and len(classes) != self.decode_head.num_classes:
            raise ValueError(
                f'SPMSegmentor.classes: expected {self.decode_head.num_classes} names, as '
                f'decode_head.num_classes says, found {len(classes)}.'
            )
        self.classes = None if classes is None else tuple(classes)
        self.backbone.classes = self.classes
        ignored = self.decode_head.ignore_index
        self.interim = InterimLoss(self.backbone, interim_weights, interim_loss, ignored)
        self._paper = (paper_parameters or {}).get(self.backbone.tuning) or {}
        self._check_parameters((expected_parameters or {}).get(self.backbone.tuning))
        self._fingerprint: str | None = None
        self._audited = False
        self.register_load_state_dict_post_hook(_forget_fingerprint)

    # -------------------------------------------------------------- the base
    def load_base(self) -> None:
        """Read the pretrained weights; on the first call, print what is trained."""
        self.backbone.load_base()
        if not self._audited:
            self._audited = True
            print_log(self.describe_parameters(), logger='current')

    @property
    def base_fingerprint(self) -> str | None:
        """`checkpoint.fingerprint` of the frozen backbone; None if it is trained."""
        if self.backbone.tuning not in FROZEN:
            return None
        self.backbone.load_base()
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.backbone.backbone_state_dict())
        return self._fingerprint

    def check_dataset(self, metainfo: Mapping) -> None:
        """Compare the classes with those of a dataset; take them from it if there are none.

        Raises:
            UserError: another number of classes, or others than in ``classes`` or in the file of
                the class prior.
        """
        names = metainfo.get('classes')
        if not names:
            return
        if len(names) != self.num_classes or self.classes not in (None, tuple(names)):
            own = list(self.classes or ()) or self.num_classes
            raise UserError(
                f'model.decode_head.num_classes and model.classes: expected those of the dataset, '
                f'{len(names)} classes {list(names)[:5]}, found {own}. Give the model the classes '
                f'of its data.'
            )
        self.classes = self.backbone.classes = tuple(names)
        self.backbone.check_prior(self.classes)

    # --------------------------------------------------------------- numbers
    def parameter_groups(self) -> dict[str, int]:
        """Trained parameters of backbone, prompt and head."""
        counts = dict.fromkeys(GROUPS, 0)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                counts[_group(name)] += parameter.numel()
        return counts

    def describe_parameters(self) -> str:
        """`parameter_groups` in millions, the paper's figures beside them if they are given."""
        lines = [f'trained parameters of {self.backbone.tuning}:']
        for group, count in self.parameter_groups().items():
            paper = f', paper {self._paper[group]:.2f} M' if group in self._paper else ''
            lines.append(f'  {group:8} {count / 1e6:6.2f} M ({count:,}{paper})')
        return '\n'.join(lines)

    def _check_parameters(self, expected: Mapping[str, int] | None) -> None:
        found = self.parameter_groups()
        if expected is not None and dict(expected) != found:
            raise ValueError(
                f'SPMSegmentor.expected_parameters[{self.backbone.tuning!r}]: expected '
                f'{dict(expected)}, found {found}. Correct the number or the model.'
            )

    # -------------------------------------------------------------- training
    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The losses of the head, as in MMSegmentation, and ``interim_<i>.loss_ce`` (Eq. 5)."""
        with self.backbone.recording() as interim:
            losses = super().loss(inputs, data_samples)
        losses.update(self.interim(interim, data_samples, inputs.shape[-2:]))
        return losses

    # ----------------------------------------------------------------- files
    def export_files(self) -> dict[str, PromptFile]:
        """What was learned beside the frozen backbone, by file name; nothing if it was trained."""
        if self.backbone.tuning not in FROZEN:
            return {}
        names = self.classes or tuple(f'class {i}' for i in range(self.num_classes))
        files = {}
        for filename, kind in ((PROMPT_FILE, 'prompt'), (HEAD_FILE, 'head')):
            tensors = self._tensors(kind)
            if tensors:
                recipe = dict(self._places(), decode_head=type(self.decode_head).__name__)
                files[filename] = PromptFile(
                    tensors, self.method, names, self.base_fingerprint, recipe, kind=kind
                )
        return files

    def load_prompt(self, prompt: PromptFile | str | os.PathLike) -> None:
        """Take over what `export_files` wrote: the given file, and its companion beside it.

        Raises:
            UserError: a file is missing, or of another method, backbone, class list or shape.
        """
        if not isinstance(prompt, PromptFile):
            prompt = PromptFile.load(prompt, kinds=('prompt', 'head'))
        files = [prompt]
        other, filename = (
            ('head', HEAD_FILE) if prompt.kind == 'prompt' else ('prompt', PROMPT_FILE)
        )
        if self._tensors(other) and prompt.path is not None:
            files.append(PromptFile.load(Path(prompt.path).parent / filename, kinds=(other,)))
        for file in files:
            self._check_file(file)
        # With everything else as it is: torch 2.1 sets counters of BatchNorm that are missing to 0.
        state = self.state_dict()
        for file in files:
            prefix = _PROMPT if file.kind == 'prompt' else ''
            state.update({prefix + name: value for name, value in file.tensors.items()})
        self.load_state_dict(state)

    def _check_file(self, file: PromptFile) -> None:
        found = {k: file.recipe.get(k) for k in self._places()}
        if file.method == self.method and found != self._places():
            raise UserError(
                f'{file.path or file.kind}: expected a {file.kind} learned with {self._places()}, '
                f'as the config says, found {found}. Use the config that trained it.'
            )
        file.check(
            base_fingerprint=self.base_fingerprint,
            classes=self.classes or file.classes,
            shapes={k: tuple(v.shape) for k, v in self._tensors(file.kind).items()},
            method=self.method,
        )

    @property
    def method(self) -> str:
        """Name of what is learned."""
        return 'SPM' if self.backbone.tuning == 'spm' else f'{self.backbone.tuning} tuning'

    def _places(self) -> dict:
        return dict(prompt_at=list(self.backbone.prompt_at))

    def _tensors(self, kind: str) -> dict[str, Tensor]:
        """State of one group but for the wrapped backbone, by the names of its file."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(_WRAPPED)}
        prefix = _PROMPT if kind == 'prompt' else ''
        return {
            k.removeprefix(prefix): v.detach().clone()
            for k, v in state.items()
            if _group(k) == kind
        }


class InterimLoss(nn.Module):
    """The second term of Eq. 5.

    Args:
        backbone: whose interim maps they are; not a part of this module.
        weights: a_i, one number for all maps or one for each.
        loss: config of the loss of one map.
        ignore_index: label of pixels that do not count.

    Raises:
        ValueError: not as many weights as maps.
    """

    def __init__(
        self,
        backbone: SPMBackbone,
        weights: float | Sequence[float],
        loss: dict,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        places = len(backbone.prompt_at)
        if isinstance(weights, (int, float)):
            weights = [weights] * places
        elif places and len(weights) != places:
            raise ValueError(
                f'interim_weights: expected one number, or one for each of the {places} places '
                f'{list(backbone.prompt_at)}, found {len(weights)}.'
            )
        self.weights = tuple(weights)
        self.loss = MODELS.build(loss)
        self.name = getattr(self.loss, 'loss_name', 'loss')
        self.ignore_index = ignore_index

    def forward(
        self, interim: Sequence[Tensor], data_samples: Sequence, size: Sequence[int]
    ) -> dict[str, Tensor]:
        """The weighted losses by name; none without maps, weights or labels.

        Args:
            interim: logits (B, s, h_i, w_i) of each map.
            data_samples: B samples, whose ``gt_sem_seg`` holds labels (1, h, w).
            size: height and width (H, W) of the batch, to which pictures, and so their labels, are
                padded at the bottom and on the right.

        Raises:
            UserError: labels of another size than their picture.
        """
        if not any(self.weights) or not all('gt_sem_seg' in sample for sample in data_samples):
            return {}
        labels = torch.cat([self._padded(sample, size) for sample in data_samples])
        losses = {}
        for index, (logits, weight) in enumerate(zip(interim, self.weights)):
            if weight:
                losses[f'interim_{index}.{self.name}'] = weight * resized_loss(
                    self.loss, logits, labels, self.ignore_index
                )
        return losses

    def _padded(self, sample: Any, size: Sequence[int]) -> Tensor:
        """Labels (1, H, W) by the name of MMSegmentation or that of MMDetection."""
        field = sample.gt_sem_seg
        labels = field.data if 'data' in field else field.sem_seg
        found, whole = tuple(labels.shape[-2:]), tuple(size)
        picture = tuple(sample.get('img_shape', whole))[:2]
        if found not in (picture, whole):
            raise UserError(
                f'gt_sem_seg of {sample.get("img_path", "a sample")}: expected labels of the size '
                f'of the picture, {picture}, or of the batch, {whole}, found {found}. Leave out '
                f'what resizes labels alone, such as SegRescale in the pipeline.'
            )
        down, across = (most - side for most, side in zip(whole, found))
        return F.pad(labels.long(), (0, across, 0, down), value=self.ignore_index)


@MODELS.register_module()
def SPMDetector(  # noqa: N802  (a config names it like a class)
    detector: dict,
    interim_weights: float | Sequence[float] = 0.4,
    interim_loss: dict = CROSS_ENTROPY,
    data_preprocessor: dict | None = None,
) -> nn.Module:
    """Build a detector of MMDetection whose loss includes the interim losses of Eq. 5.

    The detector keeps its class and the names of its parameters. Without semantic labels in a
    batch (``gt_sem_seg``) every a_i is 0, as it is in a detector built without this.

    Args:
        detector: config of any detector with an `SPMBackbone`.
        interim_weights, interim_loss: as in `SPMSegmentor`.
        data_preprocessor: of a detector that names none; where a Runner puts that of its config.

    Raises:
        ValueError: another backbone.
    """
    if data_preprocessor is not None:
        detector = dict(dict(data_preprocessor=data_preprocessor), **detector)
    model = MODELS.build(detector)
    if not isinstance(getattr(model, 'backbone', None), SPMBackbone):
        raise ValueError(
            f'SPMDetector.detector.backbone: expected an SPMBackbone, found '
            f'{type(getattr(model, "backbone", None)).__name__}.'
        )
    model.interim = InterimLoss(model.backbone, interim_weights, interim_loss)
    model.loss = _LossOfDetector(model)
    return model


class _LossOfDetector:
    """Stands in for ``detector.loss``; a plain object, so that deepcopy and pickle follow it."""

    def __init__(self, detector: nn.Module) -> None:
        self.detector = detector

    def __call__(self, batch_inputs: Tensor, batch_data_samples: list, **kwargs: Any) -> dict:
        model = self.detector
        with model.backbone.recording() as interim:
            losses = type(model).loss(model, batch_inputs, batch_data_samples, **kwargs)
        losses.update(model.interim(interim, batch_data_samples, batch_inputs.shape[-2:]))
        return losses


def _group(name: str) -> str:
    """Where a parameter or buffer of the segmentor belongs."""
    if name.startswith(_WRAPPED):
        return 'backbone'
    return 'prompt' if name.startswith(_PROMPT) else 'head'


def _forget_fingerprint(module: SPMSegmentor, _: Any) -> None:
    module._fingerprint = None
