"""Training and prediction in which an image never depends on its neighbours, nor on its size."""

import logging
import math
from collections.abc import Iterator

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import ImageGroup, image_groups, step_by_size
from mmprompt.common.mask_merge import label_map
from mmprompt.common.upsampling import FLIPS, Tile, resize_scores, upsample_masks
from mmprompt.methods.ssprompt.tasks import Answers

KEPT_SCORES = 1 << 27  # values of `seg_logits` that a result may hold unasked: 512 MiB


class ImagewiseSegmentor(EncoderDecoder):
    """MMSegmentation's segmentor around a head with `loss_of_groups`, `decode` and `answer`.

    A batch is taken apart by `image_groups`, and answers are made a tile at a time.
    """

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Loss of a batch; of images of unequal sizes, that of all their own pixels together."""
        groups = image_groups(inputs, [sample.metainfo for sample in data_samples])
        losses = self.decode_head.loss_of_groups(
            [(self.extract_feat(group.images), group.sizes) for group in groups],
            [data_samples[index] for group in groups for index in group.indices],
        )
        return add_prefix(losses, 'decode')

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Add what `test_cfg` and the task ask for, at the size of the image file.

        `pred_sem_seg` and `seg_logits`; `pred_panoptic_seg` and `pred_segments`; `pred_instances`;
        see `mmprompt.common.results`.

        An image's result is the same in any batch: what the batch padded it with is cut off, and it
        is computed with images of its own padded size.

        Args:
            inputs: (B, 3, H, W) normalised images, each in the upper left corner.
            data_samples: with the meta data of MMSegmentation; without, inputs are whole images.

        Raises:
            UserError: `test_cfg` or the meta data cannot be used.
        """
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        mode = self.test_cfg.get('mode', 'whole')
        if mode not in ('whole', 'slide'):
            raise UserError(
                f"model.test_cfg.mode: expected 'whole' or 'slide', found {mode!r}. Correct the "
                f'config.'
            )
        answer = self._slide if mode == 'slide' else self._whole
        wanted = self.decode_head.answers(self.test_cfg)
        for group in image_groups(inputs, [sample.metainfo for sample in data_samples]):
            answer(group, [data_samples[index] for index in group.indices], wanted)
        return data_samples

    def _whole(self, group: ImageGroup, samples: list[SegDataSample], wanted: Answers) -> None:
        output = self.decode_head.decode(self.extract_feat(group.images))
        images = zip(output.pred_logits, output.pred_masks, group.sizes, samples)
        for logits, masks, size, sample in images:
            shape, flip = _destination(sample, size)
            if wanted.semantic:
                tiles = self.decode_head.answer(logits, masks, size, shape, flip)
                self._store(sample, tiles, shape, masks)
            maps = upsample_masks(masks, size, shape, flip, self.align_corners)
            wanted.add(sample, logits, maps)

    def _slide(self, group: ImageGroup, samples: list[SegDataSample], wanted: Answers) -> None:
        for image, (height, width), sample in zip(group.images, group.sizes, samples):
            shape, flip = _destination(sample, (height, width))
            own = image[None, :, :height, :width]
            scores = self.slide_inference(own, [dict(img_shape=own.shape[2:])])[0]
            maps = resize_scores(scores, shape, flip, self.align_corners)
            self._store(sample, maps.tiles(), shape, scores)

    def _store(
        self, sample: SegDataSample, tiles: Iterator[Tile], shape: tuple[int, int], like: Tensor
    ) -> None:
        size = (self.num_classes, *shape)
        keep = self.test_cfg.get('keep_scores')
        if keep is None and math.prod(size) > KEPT_SCORES:
            print_log(
                f'{sample.get("img_path", "an image")}: seg_logits of {size} values are left out '
                f'of the result; model.test_cfg.keep_scores=True keeps them',
                'current',
                logging.WARNING,
            )
            keep = False
        scores = (
            like.new_empty(size, dtype=torch.promote_types(like.dtype, torch.float32))
            if keep is not False
            else None
        )
        labels = label_map(tiles, shape, like.device, scores)
        if scores is not None:
            sample.set_data(dict(seg_logits=PixelData(data=scores)))
        sample.set_data(dict(pred_sem_seg=PixelData(data=labels[None])))

    def test_step(self, data: dict) -> list[SegDataSample]:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().test_step, data)

    def val_step(self, data: dict) -> list[SegDataSample]:
        """As in MMEngine, for images of unequal sizes as well."""
        return step_by_size(super().val_step, data)


def _destination(sample: SegDataSample, size: tuple[int, int]) -> tuple[tuple, str | None]:
    """(H, W) of the image file, and how the image was mirrored."""
    meta = sample.metainfo
    flip = meta.get('flip_direction') if meta.get('flip') else None
    if flip not in FLIPS:
        raise UserError(
            f'{meta.get("img_path") or "an image"}: expected flip_direction '
            f'{sorted(filter(None, FLIPS))}, found {flip!r}. Correct the pipeline.'
        )
    return tuple(int(side) for side in meta.get('ori_shape', size)[:2]), flip
