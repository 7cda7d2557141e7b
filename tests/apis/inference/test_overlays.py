"""Colours, overlays and label maps."""

import numpy as np
import pytest
import torch
from mmseg.datasets import ADE20KDataset, CityscapesDataset
from PIL import Image

from mmprompt.apis.inference.overlays import (
    Region,
    draw_overlay,
    label_image,
    palette_of,
    regions_of,
    shade,
)
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.common.mask_merge import InstanceResult, PanopticResult
from mmprompt.methods.ssprompt.prompt_sets import PromptSet


def predicted(task, result, classes):
    prompts = PromptSet('p', tuple(classes), torch.zeros(len(classes) + 1, 4))
    return Prediction.make(prompts, task, [0], result)


def semantic(labels, classes):
    return predicted('semantic', (torch.as_tensor(labels), torch.zeros(len(classes))), classes)


def test_known_class_lists_have_their_dataset_s_colours_and_others_differ():
    for dataset in (CityscapesDataset, ADE20KDataset):
        meta = dataset.METAINFO
        assert palette_of(meta['classes']) == [tuple(c) for c in meta['palette']]
    mine = palette_of(['a', 'road', 'b', *map(str, range(60))])
    assert mine[1] == (128, 64, 128) and len(set(mine)) == len(mine)
    assert all(0 <= v <= 255 for colour in mine for v in colour)
    assert all(0 <= v <= 255 for n in range(20) for v in shade((250, 5, 120), n))


def test_an_overlay_has_colour_inside_the_regions_alone():
    picture = np.full((80, 100, 3), 100, np.uint8)
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:70] = True
    out = draw_overlay(picture, [Region(mask, (255, 0, 0), '')])
    assert out.shape == picture.shape and out.dtype == np.uint8
    assert (out[~mask] == 100).all()
    assert (out[40, 40] == (round(45 + 0.55 * 255), 45, 45)).all()
    assert not (out[20, 40] == out[40, 40]).all(), 'no outline'
    named = draw_overlay(picture, [Region(mask, (255, 0, 0), 'bus')])
    assert (named != out).any() and (named[~mask] == 100).all()
    small = np.zeros_like(mask)
    small[0, 0] = True
    draw_overlay(picture[:1, :1], [Region(small[:1, :1], (1, 2, 3), 'a long name')])


@pytest.mark.parametrize(('count', 'mode'), [(256, 'P'), (257, 'I;16')])
def test_label_maps_hold_the_indices_whatever_their_number(count, mode, tmp_path):
    labels = torch.arange(count).view(1, -1).repeat(2, 1)
    label_image(semantic(labels, list(map(str, range(count))))).save(tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as file:
        assert file.mode == mode
        assert np.array_equal(np.asarray(file), labels.numpy())


def test_the_palette_of_a_label_map_is_that_of_the_classes(tmp_path):
    image = label_image(semantic([[0, 1]], ['road', 'sky']))
    assert np.asarray(image.convert('RGB')).tolist() == [[[128, 64, 128], [70, 130, 180]]]
    ids = torch.tensor([[0, 1], [2, 2]])
    result = PanopticResult(ids, torch.tensor([1, 2]), torch.tensor([0, 1]), torch.ones(2))
    prediction = predicted('panoptic', result, ['car', 'sky'])
    colours = np.asarray(label_image(prediction).convert('RGB'))
    assert colours[0, 0].tolist() == [0, 0, 0] and len({tuple(c) for c in colours[1]}) == 1
    assert [(r.mask.sum(), r.caption) for r in regions_of(prediction)] == [
        (1, 'car 1.00'),
        (2, 'sky 1.00'),
    ]


def test_the_best_instance_is_on_top_and_weak_ones_are_left_out():
    masks = torch.ones(3, 4, 4, dtype=torch.bool)
    result = InstanceResult(masks, torch.tensor([0, 1, 0]), torch.tensor([0.9, 0.5, 0.1]))
    found = regions_of(predicted('instance', result, ['car', 'sky']))
    assert [region.caption for region in found] == ['sky 0.50', 'car 0.90']
