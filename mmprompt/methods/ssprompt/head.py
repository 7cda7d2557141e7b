"""SEEM's pixel decoder and decoder with the two prompts, as an MMSegmentation decode head.

Notation: B images, Q queries, C classes, D channels, (h, w) at stride 4, (H, W) input pixels.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.mask_merge import semantic_scores, semantic_tiles
from mmprompt.common.upsampling import MASK_STRIDE, Tile, resize_scores, upsample_masks
from mmprompt.foundation.seem import SEEMFeatures, SEEMOutput
from mmprompt.foundation.seem.class_names import text_bank_of
from mmprompt.registry import MODELS

PROMPTS = ('spatial_prompt', 'semantic_prompt')


def _resize(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)


def scores_then_size(
    logits: Tensor, masks: Tensor, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Semantic scores at stride 4, then brought to `size`: C maps are resized, not Q."""
    return _resize(semantic_scores(logits, masks), size, align_corners)


def size_then_scores(
    logits: Tensor, masks: Tensor, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Mask logits brought to `size`, then merged into scores."""
    return semantic_scores(logits, _resize(masks, size, align_corners))


PUBLISHED = 'published'
TRAIN_RESIZES = dict(scores=scores_then_size, logits=size_then_scores)
# At the input's own size the published order is that of 'logits'.
TEST_RESIZES = {**TRAIN_RESIZES, PUBLISHED: size_then_scores}


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
        text_bank: path of a text bank, or a dict of the arguments of `class_names.make_text_bank`;
            needed without `SSPromptSegmentor`, which otherwise encodes its own class names.
        train_resize: 'scores' merges at stride 4 and resizes C maps; 'logits' resizes Q mask logits
            to the padded input size first.
        test_resize: the same choice for predictions, whose scores MMSegmentation then brings to the
            image's size; or 'published', the order of SEEM's inference: mask logits to the padded
            input size, cut, brought to the image's size (bicubic), and only there merged. That last
            step is `SSPromptSegmentor`'s: in a stock ``EncoderDecoder`` and in sliding windows
            'published' is 'logits'.
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
        test_resize: str = PUBLISHED,
        align_corners: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, mode, known in (
            ('train_resize', train_resize, TRAIN_RESIZES),
            ('test_resize', test_resize, TEST_RESIZES),
        ):
            if mode not in known:
                raise ValueError(f'{name} must be one of {sorted(known)}, found {mode!r}.')
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
        expected, found = self.no_object.shape[1], semantic.shape[1]
        if expected != found:
            raise UserError(
                f'The text bank holds rows of {found} numbers, but the decoder compares with '
                f'{expected}; make it with the text encoder of the same base.'
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

    def _scores(self, logits: Tensor, masks: Tensor, size: tuple[int, int], resize) -> Tensor:
        """Semantic scores (B, C, H, W) of the input's own pixels."""
        height, width = (MASK_STRIDE * side for side in masks.shape[-2:])
        if height < size[0] or width < size[1]:
            raise ValueError(
                f'SEEMPromptHead expects a finest map of stride {MASK_STRIDE}; a map of '
                f'{tuple(masks.shape[-2:])} cells cannot cover {tuple(size)} pixels.'
            )
        scores = resize(logits, masks, (height, width), self.align_corners)
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
        return self._losses(self._training_scores(inputs, label.shape[-2:]), label)

    def loss_of_groups(
        self,
        groups: Sequence[tuple[SEEMFeatures, Sequence[tuple[int, int]]]],
        batch_data_samples: list[SegDataSample],
    ) -> dict[str, Tensor]:
        """`loss` of unequal images: that of all their pixels, laid side by side.

        Args:
            groups: features of images of one padded size, with the (h, w) of each before padding.
            batch_data_samples: in the order of the groups, labels in the upper left corner.
        """
        label = self._labels(batch_data_samples)
        sizes = {size for _, found in groups for size in found}
        if len(sizes) == 1 and len(groups) == 1:
            (height, width), (features, _) = sizes.pop(), groups[0]
            scores = self._training_scores(features, (height, width))
            return self._losses(scores, label[:, :height, :width])
        scores, labels = [], []
        for features, sizes in groups:
            whole = self._training_scores(features, tuple(map(max, zip(*sizes))))
            for image, (height, width) in zip(whole, sizes):
                labels.append(label[len(labels), :height, :width].flatten())
                scores.append(image[:, :height, :width].flatten(1))  # (C, h * w)
        # (1, C, 1, N) and (1, 1, N)
        return self._losses(torch.cat(scores, dim=1)[None, :, None], torch.cat(labels)[None, None])

    def _training_scores(self, inputs, size: tuple[int, int]) -> Tensor:
        output = self.decode(inputs)
        resize = TRAIN_RESIZES[self.train_resize]
        return self._scores(output.pred_logits, output.pred_masks, size, resize)

    def _losses(self, scores: Tensor, label: Tensor) -> dict[str, Tensor]:
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
        output = self.decode(inputs)
        resize = TEST_RESIZES[self.test_resize]
        return self._scores(output.pred_logits, output.pred_masks, tuple(size[:2]), resize)

    def answer(
        self,
        logits: Tensor,
        masks: Tensor,
        size: tuple[int, int],
        output_size: tuple[int, int],
        flip: str | None = None,
    ) -> Iterator[Tile]:
        """Semantic scores of one image at the size of the answer, (C, rows, columns) a tile.

        Args:
            logits: (Q, C+1).
            masks: (Q, h, w).
            size: (H, W) of the image before padding.
            output_size: (H, W) of the answer.
            flip: how the image was mirrored; see `upsampling.FLIPS`.
        """
        if self.test_resize == PUBLISHED:
            maps = upsample_masks(masks, size, output_size, flip, self.align_corners)
            return semantic_tiles(logits, maps)
        resize = TEST_RESIZES[self.test_resize]
        scores = self._scores(logits[None], masks[None], size, resize)[0]
        return resize_scores(scores, output_size, flip, self.align_corners).tiles()
