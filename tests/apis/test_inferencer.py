"""The Inferencer against the model called by hand."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from toy import CLASSES, toy_segmentor, write_base, write_streets

from mmprompt.apis import Inferencer
from mmprompt.registry import MODELS


@pytest.fixture
def config(tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='mmseg.PackSegInputs'),
    ]
    return Config(
        dict(
            default_scope='mmprompt',
            model=toy_segmentor(write_base(tmp_path / 'base.safetensors')),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )


@pytest.fixture
def image(tmp_path):
    return sorted(write_streets(tmp_path / 'streets').rglob('*leftImg8bit.png'))[0]


def test_a_path_an_array_and_a_list_give_the_model_s_own_answer(config, image):
    segment = Inferencer(config)
    rgb = np.array(Image.open(image))
    from_path = segment(image).pred_sem_seg.data
    model = MODELS.build(config.model).eval()
    model.load_base()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    x = (torch.from_numpy(rgb).permute(2, 0, 1).float() - mean) / std
    with torch.no_grad():
        scores = model.encode_decode(x[None], [dict(img_shape=x.shape[1:], pad_shape=x.shape[1:])])
    assert torch.equal(from_path[0], scores[0].argmax(0))
    assert torch.equal(segment(rgb).pred_sem_seg.data, from_path)
    both = segment([image, rgb])
    assert len(both) == 2 and torch.equal(both[1].pred_sem_seg.data, from_path)


def test_a_prompt_file_changes_the_answer_as_it_does_in_the_model(config, image, tmp_path):
    model = MODELS.build(config.model)
    model.load_base()
    with torch.no_grad():
        model.decode_head.semantic_prompt.offset.normal_(
            std=5.0, generator=torch.Generator().manual_seed(0)
        )
    path = model.export_prompt().save(tmp_path / 'prompt.safetensors')
    plain, prompted = Inferencer(config), Inferencer(config, path)
    assert not torch.equal(plain(image).seg_logits.data, prompted(image).seg_logits.data), (
        'the prompt was not put on'
    )
    assert prompted.model.classes == tuple(CLASSES)
    assert torch.equal(
        prompted.model.decode_head.semantic_prompt(), model.decode_head.semantic_prompt()
    )
