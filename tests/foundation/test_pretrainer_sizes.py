"""Predictions of the pre-trainer: an image has the same in any batch."""

import copy

import pytest
import torch
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from toy import CLASSES, stir, toy_seem

from mmprompt.foundation.seem.templates import BARE_TEMPLATES
from mmprompt.registry import MODELS

SIZES = [(31, 33), (32, 64), (1, 45), (45, 1), (32, 33)]
SHAPES = [(62, 66), (32, 64), (2, 90), (45, 1), (20, 21)]
TEST_CFG = dict(panoptic=True, instances=True, score_threshold=0.0, overlap_threshold=0.0, top_k=5)


@pytest.fixture(params=[(), ('backbone',)], ids=['trained', 'frozen'])
def model(request):
    torch.manual_seed(0)
    config = dict(
        type='SEEMPretrainer',
        seem=toy_seem(),
        classes=CLASSES,
        templates=BARE_TEMPLATES,
        thing_classes=tuple(range(11, 19)),
        frozen=request.param,
        test_cfg=TEST_CFG,
    )
    model = MODELS.build(config).double().eval()
    stir(model.seem.decoder)
    return model


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator).double() for size in SIZES]


def samples():
    metas = [dict(img_shape=size, ori_shape=shape) for size, shape in zip(SIZES, SHAPES)]
    return [SegDataSample(metainfo=meta) for meta in metas]


def predicted(model, order):
    inputs, given = images(), copy.deepcopy(samples())
    batch = stack_batch([inputs[i] for i in order], [given[i] for i in order], size_divisor=32)
    return model.predict(*batch)


def test_any_batch(model):
    alone = [predicted(model, [i])[0] for i in range(len(SIZES))]
    for order in (range(len(SIZES)), [4, 2, 0, 3, 1]):
        for index, mine in zip(order, predicted(model, order)):
            theirs = alone[index]
            for key in ('pred_sem_seg', 'pred_panoptic_seg'):
                assert mine.get(key).data.shape == (1, *SHAPES[index])
                assert torch.equal(mine.get(key).data, theirs.get(key).data)
            assert torch.equal(mine.pred_instances.masks, theirs.pred_instances.masks)
            for key in ('pred_segments', 'pred_instances'):
                torch.testing.assert_close(
                    mine.get(key).scores, theirs.get(key).scores, rtol=1e-10, atol=1e-10
                )


def test_unequal_images_pass_the_stock_preprocessor(model):
    model = model.float()
    data = dict(
        inputs=[image.mul(60).add(128).clamp(0, 255).byte() for image in images()],
        data_samples=samples(),
    )
    found = model.test_step(copy.deepcopy(data))
    for index, result in enumerate(found):
        alone = model.val_step({key: [values[index]] for key, values in data.items()})[0]
        assert torch.equal(result.pred_sem_seg.data, alone.pred_sem_seg.data)
