"""Pre-training of SEEM together with its text encoder."""

import hashlib
import json
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common import mask_merge
from mmprompt.common.checkpoint import fingerprint, resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.image_groups import image_groups, step_by_size
from mmprompt.common.matching import MaskTargets
from mmprompt.common.results import add_instances, add_panoptic
from mmprompt.common.upsampling import UpsampledMaps, upsample_masks
from mmprompt.foundation.seem.architecture import architecture, check_architecture
from mmprompt.foundation.seem.checkpoint import check_fit, read_base
from mmprompt.foundation.seem.criterion import SetCriterion
from mmprompt.foundation.seem.drawing import draw_strokes
from mmprompt.foundation.seem.features import SEEMFeatures
from mmprompt.registry import MODELS

DEFAULT_DATA = dict(
    type='mmseg.SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
    test_cfg=dict(size_divisor=32),
)


def _without_init(config):
    """Drop `init_cfg`: where weights once came from means nothing to who loads the base file."""
    if isinstance(config, dict):
        return {
            k: _without_init(v) for k, v in config.items() if k not in ('init_cfg', 'pretrained')
        }
    return config


@MODELS.register_module()
class SEEMPretrainer(BaseModel):
    """Trains a SEEM on images with panoptic targets; predicts SegDataSamples.

    Each training step names every class by a random one of its synonyms in a random template, so
    that names the model saw in different words mean the same.

    Args:
        seem: config of `SEEM`, with a text encoder.
        classes: one entry per class, in the order of the labels: a name or a list of synonyms, the
            usual name first. Prediction uses the usual names.
        templates: e.g. 'a photo of a {}.', all of them averaged in prediction; None = SEEM's 81.
        thing_classes: labels counted one by one.
        criterion: arguments of `SetCriterion`.
        stroke_prob: share of training steps that also train strokes.
        stroke_radius: half the width of a drawn stroke in input pixels.
        frozen: names of parts of `SEEM` that keep their weights, e.g. ('backbone',).
        feature_cache: arguments of `FeatureCache` to keep the frozen backbone's maps; only with
            'backbone' in `frozen` and a pipeline that repeats its views (no random crops).
        base: base file to start from ('mmprompt://NAME' or a path); building reads no file,
            `init_weights` and `load_base` do.
        test_cfg: `panoptic`, `instances` (bool): results to add in prediction; further keys
            `score_threshold`, `overlap_threshold`, `top_k` of `mask_merge`.
        data_preprocessor: defaults to `mmseg.SegDataPreProcessor` with SEEM's mean and std.
    """

    #: The inputs of strokes take no part in a step without strokes; see `BriefRunner.wrap_model`.
    leaves_parameters_unused = True

    def __init__(
        self,
        seem: dict,
        classes: Sequence[str | Sequence[str]],
        templates: Sequence[str] | None = None,
        thing_classes: Sequence[int] = (),
        criterion: dict | None = None,
        stroke_prob: float = 0.0,
        stroke_radius: int = 3,
        frozen: Sequence[str] = (),
        feature_cache: dict | None = None,
        base: str | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor or DEFAULT_DATA, init_cfg)
        # The constructor config goes into the base file, from which the model is built again.
        self.seem_config = _without_init(json.loads(json.dumps(seem)))
        self.seem = MODELS.build({'type': 'SEEM', **seem})
        self.synonyms = [[c] if isinstance(c, str) else list(c) for c in classes]
        self.templates = None if templates is None else list(templates)
        self.thing_classes = tuple(thing_classes)
        self.criterion = SetCriterion(**(criterion or {}))
        self.stroke_prob = stroke_prob
        self.stroke_radius = stroke_radius
        self.frozen = tuple(frozen)
        self.base = base
        self.test_cfg = dict(test_cfg or {})
        self._cache_config = feature_cache
        self._cache = None
        self._semantic: Tensor | None = None
        self._ready = False
        for part in self._frozen_parts():
            part.requires_grad_(False)

    @property
    def class_names(self) -> list[str]:
        """The usual name of every class."""
        return [names[0] for names in self.synonyms]

    def init_weights(self) -> None:
        """Initialise everything, then load the base file if one is named, and only then freeze.

        Raises:
            UserError: the base file is missing or does not fit.
        """
        super().init_weights()
        self._load_and_freeze()

    def load_base(self) -> None:
        """The same for testing, which never initialises weights; `FrozenBaseHook` calls this.

        Frozen parts are in no checkpoint of ours, so they are read from where they came.

        Raises:
            UserError: the base file is missing or does not fit.
        """
        if self._ready:
            return
        for part in self._frozen_parts():
            if hasattr(part, 'init_weights'):
                part.init_weights()
        self._load_and_freeze()

    def train(self, mode: bool = True) -> 'SEEMPretrainer':
        """Forget the class embeddings of prediction, which training outdates."""
        self._semantic = None
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """`loss` -> dict of scalars; `predict` -> samples; `tensor` -> SEEMOutput.

        Args:
            inputs: (B, 3, H, W) normalised, padded to a multiple of 32.
            data_samples: SegDataSamples; `loss` needs `gt_sem_seg`, `gt_panoptic_seg` and
                `gt_segments`.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.seem.decode(self.encode(inputs), self.semantic(), aux=False)
        raise RuntimeError(f"mode: expected 'loss', 'predict' or 'tensor', found {mode!r}.")

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of one step."""
        targets, labels = self._targets(data_samples, inputs)
        semantic = self.training_semantic()
        features = self.encode(inputs)
        rows, strokes = None, None
        if self.stroke_prob > 0 and float(torch.rand(())) < self.stroke_prob:
            rows = self._pick_targets(targets)
            chosen = targets.masks[rows.clamp(min=0)] if len(targets.masks) else None
            if chosen is not None:
                chosen = chosen & (rows >= 0)[:, None, None]
                strokes = draw_strokes(chosen, self.stroke_radius)
        output = self.seem.decode(features, semantic, strokes=strokes)
        losses = self.criterion(output, targets, labels)
        if strokes is not None:
            losses.update(self.criterion.stroke_losses(output.strokes, targets, rows))
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Add `pred_sem_seg`; on request `pred_panoptic_seg`, `pred_segments`, `pred_instances`.

        Results have the size of the image file (`ori_shape`), or of the input without meta data;
        `mmprompt.common.results` describes them. An image's results are the same in any batch: what
        the batch padded it with is cut off, and it runs with images of its own padded size.
        """
        from mmseg.structures import SegDataSample

        samples = data_samples or [SegDataSample() for _ in range(len(inputs))]
        for group in image_groups(inputs, [sample.metainfo for sample in samples]):
            output = self.seem.decode(self.encode(group.images), self.semantic(), aux=False)
            for i, (index, size) in enumerate(zip(group.indices, group.sizes)):
                sample, logits = samples[index], output.pred_logits[i]
                shape = tuple(sample.metainfo.get('ori_shape', size)[:2])
                masks = upsample_masks(output.pred_masks[i], size, shape)
                labels = mask_merge.semantic(logits, masks)
                sample.pred_sem_seg = PixelData(data=labels[None])
                self._add_results(sample, logits, masks)
        return samples

    def test_step(self, data: dict) -> list:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().test_step, data)

    def val_step(self, data: dict) -> list:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().val_step, data)

    def encode(self, inputs: Tensor) -> SEEMFeatures:
        """Image side, with the frozen backbone's maps from the cache if there is one."""
        if 'backbone' not in self.frozen:
            return self.seem.encode_image(inputs)
        with torch.no_grad():
            if self._cache_config is None:
                maps = list(self.seem.backbone(inputs))
            else:
                maps = self._cached_maps(inputs)
        return self.seem.pixel_decoder(maps)

    def semantic(self) -> Tensor:
        """(C+1, D) embeddings of the usual names, kept until the next training step."""
        if self._semantic is None:
            with torch.no_grad():
                self._semantic = self.seem.text_encoder.class_embeddings(
                    self.class_names, self.templates
                )
        return self._semantic

    def training_semantic(self) -> Tensor:
        """(C+1, D) embeddings, with gradient, of random synonyms in random templates."""
        return self.seem.text_encoder.sampled_embeddings(self.synonyms, self.templates)

    def _frozen_parts(self) -> list[nn.Module]:
        parts = dict(self.seem.named_modules())
        for name in self.frozen:
            if name not in parts:
                known = [n for n, _ in self.seem.named_children()]
                raise UserError(
                    f'SEEMPretrainer.frozen: expected names of parts of SEEM such as {known}, '
                    f'found {name!r}.'
                )
        return [parts[name] for name in self.frozen]

    def _load_and_freeze(self) -> None:
        if self.base is not None:
            path = resolve_weights(self.base)
            tensors, metadata = read_base(path)
            parts = dict(self.seem.named_children())
            places = dict.fromkeys(parts, 'seem.')
            check_architecture(self.seem_config, parts, metadata['config'], str(path), places)
            check_fit(self.seem.state_dict(), tensors, str(path))
            self.seem.load_state_dict(tensors)  # in place: the optimiser holds these parameters
        for part in self._frozen_parts():
            freeze(part)  # earlier, it would keep the initialisation from loading weights
        self._ready = True

    def _cached_maps(self, inputs: Tensor) -> list[Tensor]:
        if self._cache is None:
            from mmprompt.common.feature_cache import FeatureCache

            backbone = self.seem.backbone
            parts = architecture(self.seem_config['backbone'], type(backbone))
            text = fingerprint(backbone.state_dict()) + json.dumps(parts, sort_keys=True)
            found = hashlib.sha256(text.encode()).hexdigest()
            self._cache = FeatureCache(fingerprint=found, **self._cache_config)

        def encode(images: Tensor) -> dict[str, Tensor]:
            return {f'map{i}': m for i, m in enumerate(self.seem.backbone(images))}

        maps = self._cache.fetch(inputs, encode)
        return [maps[f'map{i}'] for i in range(4)]

    def _targets(self, data_samples: list, inputs: Tensor) -> tuple[MaskTargets, Tensor]:
        """Masks of all segments but crowds, and the (B, H, W) label map, at input size."""
        height, width = inputs.shape[-2:]
        masks, labels, maps = [], [], []
        for sample in data_samples:
            segments = sample.gt_segments
            keep = ~segments.is_crowd
            panoptic_map = sample.gt_panoptic_seg.data  # (1, h, w), not padded
            mask = panoptic_map == segments.ids[keep][:, None, None]
            right, bottom = width - mask.shape[-1], height - mask.shape[-2]
            masks.append(F.pad(mask, (0, right, 0, bottom)) if right or bottom else mask)
            labels.append(segments.labels[keep])
            maps.append(sample.gt_sem_seg.data[0])
        return MaskTargets.from_lists(masks, labels), torch.stack(maps).long()

    @staticmethod
    def _pick_targets(targets: MaskTargets) -> Tensor:
        """(B,) a random row of `targets` per image, -1 for an image without masks."""
        rows, start = [], 0
        for count in targets.counts:
            rows.append(start + int(torch.randint(count, ())) if count else -1)
            start += count
        return torch.tensor(rows, device=targets.labels.device)

    def _add_results(self, sample, logits: Tensor, masks: UpsampledMaps) -> None:
        options = self.test_cfg
        if options.get('panoptic', False):
            found = mask_merge.panoptic(
                logits,
                masks,
                self.thing_classes,
                options.get('score_threshold', 0.8),
                options.get('overlap_threshold', 0.8),
            )
            add_panoptic(sample, found, len(self.synonyms), self.thing_classes)
        if options.get('instances', False):
            found = mask_merge.instances(
                logits, masks, options.get('top_k', 100), self.thing_classes
            )
            add_instances(sample, found)
