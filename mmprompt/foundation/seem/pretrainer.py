"""Pre-training of SEEM together with its text encoder, and the export of the base file."""
import json
from pathlib import Path
from typing import Sequence

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn import functional as F

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.common.matching import MaskTargets
from mmprompt.foundation.seem.criterion import SetCriterion
from mmprompt.foundation.seem.features import SEEMFeatures
from mmprompt.registry import HOOKS, MODELS

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


def draw_strokes(masks: Tensor, radius: int = 3, length: float = 60.0) -> Tensor:
    """One straight random stroke inside each mask.

    Args:
        masks: (S, H, W) bool; an empty mask gets an empty stroke.
        radius: half the width in pixels.
        length: the longest stroke in pixels.

    Returns:
        (S, H, W) bool, a part of `masks`.
    """
    height, width = masks.shape[-2:]
    ends = (torch.rand_like(masks, dtype=torch.float32) * masks).flatten(1).topk(2).indices
    y = ends.div(width, rounding_mode='floor').float()  # (S, 2)
    x = (ends % width).float()
    dy, dx = y[:, 1] - y[:, 0], x[:, 1] - x[:, 0]
    norm = (dx * dx + dy * dy).sqrt().clamp(min=1)
    reach = torch.rand_like(norm) * length
    share = (reach / norm).clamp(max=1)
    dy, dx = (dy * share)[:, None, None], (dx * share)[:, None, None]
    rows = torch.arange(height, device=masks.device)[None, :, None] - y[:, 0, None, None]
    columns = torch.arange(width, device=masks.device)[None, None, :] - x[:, 0, None, None]
    along = (rows * dy + columns * dx) / (dx * dx + dy * dy).clamp(min=1e-6)
    along = along.clamp(0, 1)
    distance = (rows - along * dy) ** 2 + (columns - along * dx) ** 2
    return (distance <= radius * radius) & masks


@MODELS.register_module()
class SEEMPretrainer(BaseModel):
    """Trains a SEEM on images with panoptic targets; predicts SegDataSamples.

    Each training step names every class by one of its synonyms in one template, so that names the
    model saw in different words mean the same.

    Args:
        seem: config of `SEEM`, with a text encoder.
        classes: one entry per class, in the order of the labels: a name or a list of synonyms, the
            usual name first. Prediction uses the usual names.
        templates: e.g. 'a photo of a {}.'; one at random per training step, all of them (averaged)
            in prediction.
        thing_classes: labels counted one by one.
        criterion: arguments of `SetCriterion`.
        stroke_prob: share of training steps that also train strokes.
        stroke_radius: half the width of a drawn stroke in input pixels.
        frozen: names of parts of `SEEM` that keep their weights, e.g. ('backbone',).
        feature_cache: arguments of `FeatureCache` to keep the frozen backbone's maps; only with
            'backbone' in `frozen` and a pipeline that repeats its views (no random crops).
        base: base file to start from ('mmprompt://NAME' or a path), read by `init_weights`.
        test_cfg: `panoptic`, `instances` (bool): results to add in prediction; further keys
            `score_threshold`, `overlap_threshold`, `top_k` of `mask_merge`.
        data_preprocessor: defaults to `mmseg.SegDataPreProcessor` with SEEM's mean and std.
    """

    def __init__(
        self,
        seem: dict,
        classes: Sequence[str | Sequence[str]],
        templates: Sequence[str] = ('{}.',),
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
        self.seem_config = json.loads(json.dumps(seem))
        self.seem = MODELS.build({'type': 'SEEM', **seem})
        self.synonyms = [[c] if isinstance(c, str) else list(c) for c in classes]
        self.templates = list(templates)
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
        for name in self.frozen:
            self._freeze(name)

    @property
    def class_names(self) -> list[str]:
        """The usual name of every class."""
        return [names[0] for names in self.synonyms]

    def init_weights(self) -> None:
        """Initialise, then load the base file if one is named.

        Raises:
            UserError: the file is missing or does not fit.
        """
        super().init_weights()
        if self.base is None:
            return
        from mmprompt.common.checkpoint import load_tensors, resolve_weights

        path = resolve_weights(self.base)
        tensors, _ = load_tensors(path)
        own = self.seem.state_dict()
        wrong = [k for k in own if k not in tensors or tensors[k].shape != own[k].shape]
        wrong += [k for k in tensors if k not in own]
        if wrong:
            raise UserError(
                f'{path}: expected the tensors of this SEEM config, found {len(wrong)} that are '
                f'missing, unknown or of another shape, first {wrong[0]!r}. Use the model config '
                f'that the file was made with.'
            )
        self.seem.load_state_dict(tensors)

    def train(self, mode: bool = True) -> 'SEEMPretrainer':
        """Forget the class embeddings of prediction, which training outdates."""
        self._semantic = None
        return super().train(mode)

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
            return self.seem.decode(self.encode(inputs), self.semantic())
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
        output = self.seem.decode(features, semantic, strokes=strokes, aux=True)
        losses = self.criterion(output, targets, labels)
        if strokes is not None:
            losses.update(self.criterion.stroke_losses(output.strokes, targets, rows))
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Add `pred_sem_seg`, and on request `pred_panoptic_seg`, `pred_segments`, `pred_instances`.

        Results have the size of the image file (`ori_shape`), or of the input without meta data.
        `pred_segments` (`ids`, `labels`, `scores`) describes the map `pred_panoptic_seg`, in which
        0 is unlabelled.
        """
        from mmseg.structures import SegDataSample

        output = self.seem.decode(self.encode(inputs), self.semantic())
        samples = data_samples or [SegDataSample() for _ in range(len(inputs))]
        padded = inputs.shape[-2:]
        for i, sample in enumerate(samples):
            masks = self._resize(output.pred_masks[i], padded, sample.metainfo)
            logits = output.pred_logits[i]
            scores = mask_merge.semantic_scores(logits[None], masks[None])[0]
            sample.pred_sem_seg = PixelData(data=scores.argmax(dim=0, keepdim=True))
            self._add_results(sample, logits, masks)
        return samples

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
        """(C+1, D) embeddings, with gradient, of one synonym per class in one template."""
        names = [n[int(torch.randint(len(n), ()))] for n in self.synonyms]
        template = self.templates[int(torch.randint(len(self.templates), ()))]
        return self.seem.text_encoder.class_embeddings(names, [template])

    def _freeze(self, name: str) -> None:
        from mmprompt.common.freeze import freeze

        try:
            freeze(self.seem.get_submodule(name))
        except AttributeError as error:
            parts = [n for n, _ in self.seem.named_children()]
            raise UserError(
                f'SEEMPretrainer.frozen: expected names of parts of SEEM such as {parts}, found '
                f'{name!r}.'
            ) from error

    def _cached_maps(self, inputs: Tensor) -> list[Tensor]:
        if self._cache is None:
            from mmprompt.common.checkpoint import fingerprint
            from mmprompt.common.feature_cache import FeatureCache

            self._cache = FeatureCache(
                fingerprint=fingerprint(self.seem.backbone.state_dict()), **self._cache_config
            )

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

    @staticmethod
    def _resize(mask_logits: Tensor, padded: torch.Size, meta: dict) -> Tensor:
        """(Q, h, w) mask logits -> padded size, crop of the padding, size of the image file."""
        x = F.interpolate(mask_logits[None], size=padded, mode='bilinear', align_corners=False)
        height, width = meta.get('img_shape', padded)[:2]
        size = tuple(meta.get('ori_shape', (height, width))[:2])
        x = x[..., :height, :width]
        if size != (height, width):
            x = F.interpolate(x, size=size, mode='bicubic', align_corners=False, antialias=True)
        return x[0]

    def _add_results(self, sample, logits: Tensor, masks: Tensor) -> None:
        options = self.test_cfg
        if options.get('panoptic', False):
            found = mask_merge.panoptic(
                logits,
                masks,
                self.thing_classes,
                options.get('score_threshold', 0.8),
                options.get('overlap_threshold', 0.8),
            )
            segments = InstanceData(ids=found.ids, labels=found.labels, scores=found.scores)
            sample.set_data(
                dict(
                    pred_panoptic_seg=PixelData(data=found.seg_map[None]), pred_segments=segments
                )
            )
        if options.get('instances', False):
            found = mask_merge.instances(
                logits, masks, options.get('top_k', 100), self.thing_classes
            )
            sample.set_data(
                dict(
                    pred_instances=InstanceData(
                        masks=found.masks, labels=found.labels, scores=found.scores
                    )
                )
            )


@HOOKS.register_module()
class ExportBaseHook(Hook):
    """Writes the trained SEEM as a base file, safetensors with config and record inside.

    Args:
        out: file name, inside the work dir unless absolute.
        interval: also write every so many iterations ("last good"); 0 = only at the end.
        record: facts to keep with the weights, e.g. the command and the data's hash.
    """

    priority = 'LOW'

    def __init__(self, out: str = 'base.safetensors', interval: int = 0, record: dict | None = None):
        self.out = out
        self.interval = interval
        self.record = dict(record or {})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write every `interval` iterations."""
        if self.interval and (runner.iter + 1) % self.interval == 0:
            self.export(runner, runner.iter + 1)

    def after_train(self, runner) -> None:
        """Write the final weights."""
        self.export(runner, runner.iter)

    @torch.no_grad()
    def export(self, runner, iteration: int) -> None:
        """Write atomically; weights that are not finite never replace good ones."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not is_main_process():
            return
        bad = [n for n, v in model.seem.state_dict().items() if not torch.isfinite(v).all()]
        path = Path(self.out)
        path = path if path.is_absolute() else Path(runner.work_dir) / path
        if bad:
            runner.logger.error(f'{bad[0]} is not finite: {path} keeps its former weights.')
            return
        from mmprompt.foundation.seem.checkpoint import save_base

        record = {
            **self.record,
            'iterations': iteration,
            'seed': runner.seed,
            'classes': model.class_names,
            'torch': torch.__version__,
        }
        save_base(path, model.seem, model.seem_config, record)
        runner.logger.info(f'Base exported to {path} at iteration {iteration}.')
