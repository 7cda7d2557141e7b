"""SEEM's pixel decoder and decoder with the two prompts, as an MMSegmentation decode head.

Notation: B images, Q queries, C classes, D channels, (h, w) at stride 4, (H, W) input pixels.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.mask_merge import semantic_scores
from mmprompt.foundation.seem import SEEMFeatures, SEEMOutput
from mmprompt.methods.ssprompt.text import text_bank_of
from mmprompt.registry import MODELS

MASK_STRIDE = 4
PROMPTS = ('spatial_prompt', 'semantic_prompt')


def _resize(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)


def resize_scores(output: SEEMOutput, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Semantic scores at stride 4, then brought to `size`: C maps are resized, not Q."""
    scores = semantic_scores(output.pred_logits, output.pred_masks)
    return _resize(scores, size, align_corners)


def resize_logits(output: SEEMOutput, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Mask logits brought to `size`, then merged into scores: the order of SEEM's inference."""
    return semantic_scores(output.pred_logits, _resize(output.pred_masks, size, align_corners))


RESIZES = dict(scores=resize_scores, logits=resize_logits)


def read_configs(configs: Mapping) -> dict[str, dict]:
    """The `reading` of both prompts by their configs in a recipe."""
    given = {part: configs[part] for part in PROMPTS if part in configs}
    sizes = dict(num_prompts=1, dim=1)
    return {part: MODELS.build({**sizes, **config}).reading for part, config in given.items()}


def is_trained(*modules: nn.Module) -> bool:
    """Whether any parameter of `modules` asks for a gradient."""
    return any(p.requires_grad for module in modules for p in module.parameters())


@MODELS.register_module()
class SEEMPromptHead(BaseModule):
    """Frozen pixel decoder and decoder of SEEM, steered by a spatial and a semantic prompt (Eq. 8).

    It is the `decode_head` of `SSPromptSegmentor` and works as that of a stock MMSegmentation
    ``EncoderDecoder`` over any backbone with four maps at strides 4, 8, 16 and 32. Building it
    reads no file: the embeddings of the classes come with `fill`, or from `text_bank` at the first
    forward.

    Args:
        pixel_decoder: config of the pixel decoder, such as `TransformerFPN`.
        decoder: config of the decoder, such as `SEEMDecoder`.
        num_classes: C, without "no object".
        spatial_prompt: config of `SpaPrompt` or `DefaultPrompt`.
        semantic_prompt: config of `SemPrompt` or `DefaultPrompt`.
        loss_decode: config of the loss; `SSPromptSemanticLoss` with its defaults if None.
        text_bank: for use without `SSPromptSegmentor`: path of a text bank, or a dict of the
            arguments of `text.make_text_bank`.
        train_resize: 'scores' merges at stride 4 and resizes C maps; 'logits' resizes Q mask logits
            first, as SEEM's inference does.
        test_resize: the same choice for predictions.
        align_corners: of every resize, MMSegmentation's own included.
    """

    def __init__(
        self,
        pixel_decoder: dict,
        decoder: dict,
        num_classes: int,
        spatial_prompt: dict,
        semantic_prompt: dict,
        loss_decode: dict | None = None,
        text_bank: str | dict | None = None,
        train_resize: str = 'scores',
        test_resize: str = 'logits',
        align_corners: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, mode in (('train_resize', train_resize), ('test_resize', test_resize)):
            if mode not in RESIZES:
                raise ValueError(f'{name} must be one of {sorted(RESIZES)}, found {mode!r}.')
        self.train_resize, self.test_resize = train_resize, test_resize
        self.align_corners = align_corners
        self.num_classes = self.out_channels = num_classes
        self.text_bank = text_bank
        self.pixel_decoder = freeze(MODELS.build(pixel_decoder))
        self.decoder = freeze(MODELS.build(decoder))
        self.in_channels = list(pixel_decoder['in_channels'])
        text_dim = self.decoder.class_embed.shape[1]
        self.spatial_prompt = MODELS.build({'dim': self.decoder.dim, **spatial_prompt})
        self.semantic_prompt = MODELS.build(
            {'num_prompts': num_classes, 'dim': text_dim, **semantic_prompt}
        )
        # Kept for the recipe of a prompt file, from which the prompts can be built again.
        self.prompt_configs = dict(
            spatial_prompt=dict(spatial_prompt), semantic_prompt=dict(semantic_prompt)
        )
        self.loss_decode = MODELS.build(loss_decode or dict(type='SSPromptSemanticLoss'))
        self.ignore_index = self.loss_decode.ignore_index
        self.register_buffer('no_object', torch.zeros(1, text_dim), persistent=False)
        self.filled = False
        self._check_prompts()

    def _check_prompts(self) -> None:
        spatial, semantic = self.spatial_prompt, self.semantic_prompt
        if semantic.num_prompts != self.num_classes:
            raise ValueError(
                f'semantic_prompt.num_prompts is {semantic.num_prompts}, but num_classes is '
                f'{self.num_classes}; leave num_prompts out.'
            )
        if spatial.num_prompts >= self.decoder.num_queries:
            raise ValueError(
                f'spatial_prompt.num_prompts is {spatial.num_prompts}, but decoder.num_queries is '
                f'{self.decoder.num_queries}: at least one query stays frozen. Lower num_prompts.'
            )
        if spatial.source.needs_object_tokens and not self.decoder.object_tokens:
            raise ValueError(
                "spatial_prompt.source 'grid' needs the decoder in which object queries attend to "
                'spatial tokens; set decoder.object_tokens=True.'
            )

    @property
    def reading(self) -> dict[str, dict]:
        """What the tensors of a prompt file mean: effective values, defaults included."""
        return {part: getattr(self, part).reading for part in PROMPTS}

    def fill(self, semantic: Tensor) -> None:
        """Give both prompts their defaults; once, after the frozen weights are in place.

        Args:
            semantic: (C+1, D) class embeddings, the row of "no object" last.
        """
        rows = self.num_classes + 1
        if semantic.shape[0] != rows:
            raise UserError(
                f'The text bank holds {semantic.shape[0] - 1} classes and "no object", but '
                f'decode_head.num_classes is {self.num_classes}; give both the same classes.'
            )
        spatial = self.spatial_prompt
        with torch.no_grad():
            self.no_object.copy_(semantic[-1:])
            self.semantic_prompt.fill(semantic[:-1])
            spatial.fill(spatial.source.default(self.decoder, spatial.num_prompts))
        self.filled = True

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # Other frozen weights have other defaults, which are then taken at the next forward.
        queries = state_dict.get(prefix + 'decoder.query_feat', self.decoder.query_feat)
        self.filled = self.filled and torch.equal(queries.cpu(), self.decoder.query_feat.cpu())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def encode(self, maps: Sequence[Tensor]) -> SEEMFeatures:
        """Four backbone maps, strides 4, 8, 16, 32 -> features of the decoder."""
        graph = is_trained(self.pixel_decoder) or any(m.requires_grad for m in maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            return self.pixel_decoder(maps)

    def decode(self, inputs: SEEMFeatures | Sequence[Tensor]) -> SEEMOutput:
        """Masks (B, Q, h, w) and class logits (B, Q, C+1) under both prompts.

        Without a learned spatial prompt the layers run without a graph: a semantic prompt only
        meets the class vectors that they end in.
        """
        if not self.filled:
            self.fill(text_bank_of(self.text_bank).embeddings)
        features = inputs if isinstance(inputs, SEEMFeatures) else self.encode(inputs)
        semantic = torch.cat([self.semantic_prompt(), self.no_object])  # (C+1, D)
        maps = [*features.multi_scale, features.mask_features]
        graph = is_trained(self.spatial_prompt, self.decoder) or any(m.requires_grad for m in maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            spatial = self.spatial_prompt.source.pack(self.spatial_prompt(), self.decoder)
            output = self.decoder(features, semantic.detach(), spatial=spatial)
        output.pred_logits = self.decoder.class_logits(output.queries, semantic)
        return output

    def _scores(self, output: SEEMOutput, size: tuple[int, int], mode: str) -> Tensor:
        """Semantic scores (B, C, H, W) of the input's own pixels."""
        height, width = (MASK_STRIDE * side for side in output.pred_masks.shape[-2:])
        if height < size[0] or width < size[1]:
            raise ValueError(
                f'SEEMPromptHead expects a finest map of stride {MASK_STRIDE}; a map of '
                f'{tuple(output.pred_masks.shape[-2:])} cells cannot cover {tuple(size)} pixels.'
            )
        scores = RESIZES[mode](output, (height, width), self.align_corners)
        return scores[..., : size[0], : size[1]]  # what was padded at the right and bottom goes

    def forward(self, inputs: SEEMFeatures | Sequence[Tensor]) -> Tensor:
        """Semantic scores at stride 4, (B, C, h, w)."""
        output = self.decode(inputs)
        return semantic_scores(output.pred_logits, output.pred_masks)

    def loss(
        self,
        inputs: SEEMFeatures | Sequence[Tensor],
        batch_data_samples: list[SegDataSample],
        train_cfg: dict | None = None,
    ) -> dict[str, Tensor]:
        """Loss (Eq. 9) and pixel accuracy in per cent of a batch with `gt_sem_seg`."""
        label = self._labels(batch_data_samples)
        scores = self._scores(self.decode(inputs), label.shape[-2:], self.train_resize)
        accuracy = self._accuracy(scores.detach(), label)
        return {self.loss_decode.loss_name: self.loss_decode(scores, label), 'acc_seg': accuracy}

    def _accuracy(self, scores: Tensor, label: Tensor) -> Tensor:
        """Per cent of the labelled pixels whose class has the highest score."""
        labelled = label != self.ignore_index
        chosen = scores.gather(1, label.masked_fill(~labelled, 0)[:, None])[:, 0]
        # Comparing with the maximum is 30 times as fast on a CPU as looking for its place.
        right = (chosen == scores.amax(dim=1)) & labelled
        return 100.0 * right.sum() / labelled.sum().clamp(min=1)

    def _labels(self, samples: list[SegDataSample]) -> Tensor:
        """Labels (B, H, W), checked against the classes."""
        label = torch.stack([s.gt_sem_seg.data.squeeze(0) for s in samples]).long()
        wrong = (label != self.ignore_index) & ((label < 0) | (label >= self.num_classes))
        if wrong.any():
            first = int(wrong.flatten(1).any(dim=1).nonzero()[0])
            value = int(label[first][wrong[first]][0])
            path = samples[first].metainfo.get('seg_map_path', 'a label map')
            raise UserError(
                f'{path}: label {value} is no class; expected 0 to {self.num_classes - 1} or '
                f'{self.ignore_index} (ignored). Map the labels to the classes of the dataset.'
            )
        return label

    def predict(
        self,
        inputs: SEEMFeatures | Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: dict | None = None,
    ) -> Tensor:
        """Semantic scores at the padded input's size, (B, C, H, W)."""
        meta = batch_img_metas[0]
        # A torch.Size is the crop of MMSegmentation's sliding window; it outranks the padded shape.
        crop = isinstance(meta['img_shape'], torch.Size)
        size = meta['img_shape'] if crop else meta.get('pad_shape', meta['img_shape'])
        return self._scores(self.decode(inputs), tuple(size[:2]), self.test_resize)
