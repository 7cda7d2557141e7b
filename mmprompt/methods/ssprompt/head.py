"""SEEM's pixel decoder and decoder with the two prompts, as an MMSegmentation decode head.

Notation: B images, Q queries, C classes, D channels, (h, w) at stride 4, (H, W) input pixels.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.model import BaseModule
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import is_frozen
from mmprompt.common.mask_merge import semantic_scores, semantic_tiles
from mmprompt.common.text_bank import Names
from mmprompt.common.upsampling import Tile, resize_scores, upsample_masks
from mmprompt.foundation.seem import SEEMFeatures, SEEMOutput
from mmprompt.foundation.seem.class_names import text_bank_of
from mmprompt.methods.ssprompt.scores import (
    PUBLISHED,
    TEST_RESIZES,
    TRAIN_RESIZES,
    scores_of_pixels,
)
from mmprompt.methods.ssprompt.sources import SOURCES
from mmprompt.methods.ssprompt.tasks import (
    SEMANTIC,
    TASKS,
    Answers,
    Group,
    MaskTask,
    SemanticTask,
)
from mmprompt.methods.ssprompt.tuning import freeze_decoders
from mmprompt.registry import MODELS

PROMPTS = ('spatial_prompt', 'semantic_prompt')


def read_configs(configs: Mapping) -> dict[str, dict]:
    """The `reading` of both prompts by their configs in a recipe."""
    given = {part: configs[part] for part in PROMPTS if part in configs}
    sizes = dict(num_prompts=1, dim=1)
    return {part: MODELS.build({**sizes, **config}).reading for part, config in given.items()}


def _given(text_encoder: dict | None, semantic_prompt: Mapping) -> dict:
    if text_encoder is None:
        raise ValueError(
            f'{semantic_prompt["type"]} reads words: give SEEMPromptHead.text_encoder, the config '
            f'of the text encoder of the base ({{{{_base_.seem.text_encoder}}}} in our configs).'
        )
    return text_encoder


def reads_words(semantic_prompt: Mapping) -> bool:
    """Whether the prompt of a config asks for the text encoder of the base."""
    return getattr(MODELS.get(semantic_prompt['type']), 'needs_text_encoder', False)


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
        spatial_prompt: config of `SpaPrompt`, `VSPL` or `DefaultPrompt`.
        semantic_prompt: config of `SemPrompt`, `CoOp`, `LOCN` or `DefaultPrompt`.
        task: 'semantic', 'instance' or 'panoptic': what is trained, and with which loss. Prediction
            answers for any of them; see `tasks.Answers`.
        thing_classes: classes counted one by one, in instance and panoptic segmentation.
        tune: what is trained beside the prompts: 'prompts' nothing, 'head' what turns the decoder's
            queries into classes and masks, 'full' both decoders; see `tuning`.
        text_encoder: config of the base's text encoder, which `CoOp` and `LOCN` read with.
        loss_decode: config of the loss of 'semantic'; `SSPromptSemanticLoss` if None.
        mask_loss: config of the loss of 'instance' and 'panoptic'; `SSPromptMaskLoss` if None.
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
        task: str = SEMANTIC,
        thing_classes: Sequence[int] = (),
        loss_decode: dict | None = None,
        mask_loss: dict | None = None,
        text_bank: str | dict | None = None,
        tune: str = 'prompts',
        text_encoder: dict | None = None,
        train_resize: str = 'scores',
        test_resize: str = PUBLISHED,
        align_corners: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, mode, known in (
            ('task', task, TASKS),
            ('train_resize', train_resize, TRAIN_RESIZES),
            ('test_resize', test_resize, TEST_RESIZES),
        ):
            if mode not in known:
                raise ValueError(f'{name} must be one of {sorted(known)}, found {mode!r}.')
        self.train_resize, self.test_resize = train_resize, test_resize
        self.align_corners = align_corners
        self.num_classes = self.out_channels = num_classes
        self.text_bank = text_bank
        self.pixel_decoder = MODELS.build(pixel_decoder)
        self.decoder = MODELS.build(decoder)
        freeze_decoders(tune, self.pixel_decoder, self.decoder)
        self.tune = tune
        self.in_channels = list(pixel_decoder['in_channels'])
        text_dim = self.decoder.class_embed.shape[1]
        self.spatial_prompt = MODELS.build({'dim': self.decoder.dim, **spatial_prompt})
        sizes = dict(num_prompts=num_classes, dim=text_dim)
        if reads_words(semantic_prompt):
            sizes.update(text_encoder=_given(text_encoder, semantic_prompt))
        self.semantic_prompt = MODELS.build({**sizes, **semantic_prompt})
        # Kept for the recipe of a prompt file, from which the prompts can be built again.
        self.prompt_configs = dict(
            spatial_prompt=dict(spatial_prompt), semantic_prompt=dict(semantic_prompt)
        )
        self.thing_classes = tuple(thing_classes)
        self.task = self._task(task, loss_decode, mask_loss)
        self.loss_decode = self.task.loss
        self.ignore_index = self.loss_decode.ignore_index
        self.register_buffer('no_object', torch.zeros(1, text_dim), persistent=False)
        self.filled = False
        self._check_prompts()

    def _task(self, name: str, loss: dict | None, mask_loss: dict | None):
        if name == SEMANTIC:
            loss = MODELS.build(loss or dict(type='SSPromptSemanticLoss'))
            resize = TRAIN_RESIZES[self.train_resize]
            return SemanticTask(loss, self.num_classes, resize, self.align_corners)
        things = self.thing_classes
        if not things or not set(things) <= set(range(self.num_classes)):
            raise ValueError(
                f'task {name!r} needs thing_classes among 0 to {self.num_classes - 1}, found '
                f'{things}.'
            )
        loss = MODELS.build(mask_loss or dict(type='SSPromptMaskLoss'))
        return MaskTask(name, loss, self.num_classes, things)

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
        if spatial.source is SOURCES['points']:
            raise ValueError("spatial_prompt.source 'points' is SAM's; give SEEM another one.")
        if spatial.source.needs_object_tokens and not self.decoder.object_tokens:
            raise ValueError(
                "spatial_prompt.source 'grid' needs the decoder in which object queries attend to "
                'spatial tokens; set decoder.object_tokens=True.'
            )

    @property
    def reading(self) -> dict[str, dict]:
        """What the tensors of a prompt file mean: effective values, defaults included."""
        return {part: getattr(self, part).reading for part in PROMPTS}

    def fill(self, semantic: Tensor, names: Names | None = None) -> None:
        """Give both prompts their defaults; once, after the frozen weights are in place.

        Args:
            semantic: (C+1, D) class embeddings, the row of "no object" last.
            names: what they embed, for prompts that learn words.
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
        if getattr(self.semantic_prompt, 'needs_text_encoder', False):
            self.semantic_prompt.read(names)
        with torch.no_grad():
            self.no_object.copy_(semantic[-1:])
            self.semantic_prompt.fill(semantic[:-1])
            spatial.fill(spatial.source.default(self.decoder, spatial.num_prompts))
        self.filled = True

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # Other frozen weights have other defaults, which are then taken at the next forward.
        queries = state_dict.get(prefix + 'decoder.query_feat', self.decoder.query_feat)
        if is_frozen(self.decoder):
            self.filled = self.filled and torch.equal(queries.cpu(), self.decoder.query_feat.cpu())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def encode(self, maps: Sequence[Tensor]) -> SEEMFeatures:
        """Four backbone maps, strides 4, 8, 16, 32 -> features of the decoder."""
        graph = is_trained(self.pixel_decoder) or any(m.requires_grad for m in maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            return self.pixel_decoder(maps)

    def decode(self, inputs: SEEMFeatures | Sequence[Tensor], aux: bool = False) -> SEEMOutput:
        """Masks (B, Q, h, w) and class logits (B, Q, C+1) under both prompts.

        With `aux` also the predictions before layer 0 and after each layer but the last. Without a
        learned spatial prompt the layers run without a graph: a semantic prompt only meets the
        class vectors that they end in.
        """
        if not self.filled:
            self.fill(text_bank_of(self.text_bank).embeddings)
        features = inputs if isinstance(inputs, SEEMFeatures) else self.encode(inputs)
        semantic = torch.cat([self.semantic_prompt(), self.no_object])  # (C+1, D)
        maps = [*features.multi_scale, features.mask_features]
        graph = is_trained(self.spatial_prompt, self.decoder) or any(m.requires_grad for m in maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            spatial = self.spatial_prompt.source.pack(self.spatial_prompt(), self.decoder)
            output = self.decoder(features, semantic.detach(), spatial=spatial, aux=aux)
        for prediction in (*output.aux, output):
            prediction.pred_logits = self.decoder.class_logits(prediction.queries, semantic)
        return output

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
        """Losses of a batch whose samples hold the truth of the task.

        'semantic': loss (Eq. 9) and pixel accuracy in per cent.
        """
        sizes = self.task.sizes(batch_data_samples)
        return self.task.losses(self.decode, [(inputs, sizes)], batch_data_samples)

    def loss_of_groups(
        self, groups: Sequence[Group], batch_data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """`loss` of unequal images, as of one batch.

        Args:
            groups: features of images of one padded size, with the (h, w) of each before padding.
            batch_data_samples: in the order of the groups, labels in the upper left corner.
        """
        return self.task.losses(self.decode, groups, batch_data_samples)

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
        logits, masks = output.pred_logits, output.pred_masks
        return self._scores(logits, masks, tuple(size[:2]))

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
        scores = self._scores(logits[None], masks[None], size)[0]
        return resize_scores(scores, output_size, flip, self.align_corners).tiles()

    def answers(self, test_cfg: Mapping) -> Answers:
        """What predictions under this `test_cfg` hold."""
        return Answers.read(test_cfg, self.task.name, self.thing_classes)

    def _scores(self, logits: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
        resize = TEST_RESIZES[self.test_resize]
        return scores_of_pixels(logits, masks, size, resize, self.align_corners)
