"""The Inferencer against the model called by hand."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from prompt_files import prompt_of, write_picture, write_video
from pycocotools import mask as coco_mask
from toy import CLASSES, toy_segmentor, write_base, write_streets

from mmprompt.apis import Inferencer
from mmprompt.common.errors import UserError
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


def test_arrays_of_a_config_are_checked_and_rounded(config, image):
    segment = Inferencer(config)
    rgb = np.array(Image.open(image).convert('RGB'))
    expected = segment(rgb).pred_sem_seg.data
    rounded = segment(np.clip(rgb + 0.3, 0, 255)).pred_sem_seg.data
    assert torch.equal(rounded, expected)
    for wrong in (rgb[..., 0], np.dstack([rgb, rgb[..., 0]]), rgb / 255.0, rgb[None]):
        with pytest.raises(UserError, match='found'):
            segment(wrong)


def test_things_of_a_prompt_file_are_known_again(config, tmp_path):
    config.model.decode_head.update(task='panoptic', thing_classes=(2, 13))
    model = MODELS.build(config.model)
    path = prompt_of(model).save(tmp_path / 'panoptic.safetensors')
    segment = Inferencer(config.model.base, prompts=[path], texts=['road', 'car'])
    assert segment.things == {'panoptic': (2, 13), 'zero-shot': (1,)}
    said = Inferencer(config.model.base, prompts=[path], things=['sky'])
    assert said.things == {'panoptic': (10,)}
    named = Inferencer(config.model.base, texts=['Road', ['wall', 'Truck'], 'sky'])
    assert named.things == {'zero-shot': (1,)}
    said = Inferencer(config.model.base, texts=['sky', ['wall', 'truck']], things=['TRUCK'])
    assert said.things == {'zero-shot': (1,)}


def test_a_panoptic_config_needs_no_truth(config, image):
    config.model.decode_head.update(task='panoptic', thing_classes=(11, 13))
    config.model.test_cfg = dict(mode='whole', instances=True)
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline.insert(2, dict(type='LoadCityscapesPanoptic'))
    pipeline[-1] = dict(type='PackPanopticInputs')
    result = Inferencer(config)(image)
    shape = np.array(Image.open(image)).shape[:2]
    assert result.pred_panoptic_seg.data.shape == (1, *shape)
    assert result.pred_instances.masks.shape[1:] == shape


def test_a_prompt_file_changes_the_answer_as_it_does_in_the_model(config, image, tmp_path):
    model = MODELS.build(config.model)
    model.load_base()
    with torch.no_grad():
        model.decode_head.semantic_prompt.offset.normal_(
            std=5.0, generator=torch.Generator().manual_seed(0)
        )
    path = prompt_of(model).save(tmp_path / 'prompt.safetensors')
    plain, prompted = Inferencer(config), Inferencer(config, path)
    assert not torch.equal(plain(image).seg_logits.data, prompted(image).seg_logits.data), (
        'the prompt was not put on'
    )
    assert prompted.model.classes == tuple(CLASSES)
    assert torch.equal(
        prompted.model.decode_head.semantic_prompt(), model.decode_head.semantic_prompt()
    )


def test_a_base_with_prompts_gives_the_label_map_of_the_prompt_s_own_config(
    toy_prompts, config, image
):
    base, prompts = toy_prompts
    config.model.base = str(base)
    alone = Inferencer(config, prompts['streets'])(image)
    segment = Inferencer(base, prompts=list(prompts.values()), texts=['road', ['car', 'truck']])
    found = segment(image)
    assert list(found) == ['streets', 'few', 'zero-shot']
    assert np.array_equal(found['streets'].label_map, alone.pred_sem_seg.data[0].numpy())
    assert found['few'].classes == ('road', 'sky', 'car')
    assert found['zero-shot'].classes == ('road', 'car')
    assert len({f.label_map.tobytes() for f in found.values()}) == 3
    # By the config's base, or with one prompt as the second argument: the same.
    for other in (Inferencer(config, prompts=prompts), Inferencer(base, prompts['streets'])):
        assert np.array_equal(other(image)['streets'].label_map, found['streets'].label_map)


def test_images_of_unequal_sizes_lists_and_streams_agree(toy_prompts, tmp_path):
    base, prompts = toy_prompts
    segment = Inferencer(base, prompts=prompts, short_side=40)
    paths = [tmp_path / 'a.png', tmp_path / 'b.png', tmp_path / 'c.png']
    arrays = [
        write_picture(path, size) for path, size in zip(paths, ((40, 56), (64, 33), (40, 56)))
    ]
    found = segment(paths)
    singles = [segment(array) for array in arrays]
    streamed = list(segment.stream(iter(arrays), batch=2))
    assert len(found) == len(streamed) == 3
    for array, *each in zip(arrays, found, singles, streamed):
        for name in prompts:
            maps = [predictions[name].label_map for predictions in each]
            assert maps[0].shape == array.shape[:2]
            assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])
    assert segment([]) == []


def test_frames_of_a_video_come_one_by_one(toy_prompts, tmp_path):
    base, prompts = toy_prompts
    write_video(tmp_path / 'drive.avi')
    segment = Inferencer(base, prompts=prompts['few'])
    found = list(segment.video(tmp_path / 'drive.avi', batch=2))
    assert [number for number, _, _ in found] == [0, 1, 2, 3, 4]
    for _, frame, predictions in found:
        alone = segment(frame)['few'].label_map
        assert np.array_equal(predictions['few'].label_map, alone)


def test_predictions_are_plain_objects_and_data_samples(toy_prompts, tmp_path):
    base, prompts = toy_prompts
    picture = write_picture(tmp_path / 'a.png')
    segment = Inferencer(base, prompts=prompts, things=['car', 'person'])
    semantic = segment(picture)['streets']
    sample = semantic.to_data_sample()
    assert np.array_equal(sample.pred_sem_seg.data[0].numpy(), semantic.label_map)
    regions = list(semantic.segments)
    assert sum(r.area for r in regions) == picture.shape[0] * picture.shape[1]
    assert {r.category for r in regions} == {CLASSES[i] for i in np.unique(semantic.label_map)}
    assert all(r.score == pytest.approx(semantic.scores[r.category_id]) for r in regions)

    panoptic = segment(picture, 'panoptic', score_threshold=0.01, overlap_threshold=0)['streets']
    regions = list(panoptic.segments)
    assert len(regions) > 1 and [r.id for r in regions] == list(range(1, len(regions) + 1))
    sample = panoptic.to_data_sample()
    assert np.array_equal(sample.pred_panoptic_seg.data[0].numpy(), panoptic.label_map)
    assert set(np.unique(panoptic.class_map)) <= {-1, *(r.category_id for r in regions)}
    for region in regions:
        assert (panoptic.class_map[region.mask] == region.category_id).all()
        assert region.is_thing == (region.category in ('car', 'person'))

    instance = segment(picture, 'instance', top_k=300)['streets']
    regions = list(instance.segments)
    assert instance.label_map is None and {r.category for r in regions} <= {'car', 'person'}
    assert len(regions) == len(instance.to_data_sample().pred_instances.masks) > 1
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)
    found = regions[0].as_dict()
    rle = dict(found['segmentation'], counts=found['segmentation']['counts'].encode())
    assert np.array_equal(coco_mask.decode(rle).astype(bool), regions[0].mask)
    assert found['area'] == regions[0].mask.sum()


def test_what_cannot_be_used_is_said(toy_prompts, config, tmp_path):
    base, prompts = toy_prompts
    for arguments, message in (
        (dict(), 'neither prompt files nor class names'),
        (dict(texts=['road'], things=['unicorn']), "names of classes, found 'unicorn'"),
        (dict(texts=['road'], device='cuda:99x'), "cpu, cuda or cuda:N, found 'cuda:99x'"),
        (dict(prompt=prompts['few'], prompts=prompts), 'expected prompt or prompts, found both'),
        (dict(prompts=[tmp_path / 'none.safetensors']), 'none.safetensors'),
    ):
        with pytest.raises(UserError, match=message):
            Inferencer(base, **arguments)
    for arguments in (dict(templates=['a {}.']), dict(short_side=7), dict(dtype=torch.float16)):
        with pytest.raises(UserError, match=f'expected {next(iter(arguments))} with a base'):
            Inferencer(config, **arguments)
    with pytest.raises(UserError, match='expected task, top_k with a base'):
        Inferencer(config)(np.zeros((8, 8, 3), np.uint8), 'instance', top_k=3)
    with pytest.raises(UserError, match='found a config with at most one prompt'):
        list(Inferencer(config).stream([]))
    with pytest.raises(UserError, match=r'none\.png: expected'):
        Inferencer(base, texts=['road'])(tmp_path / 'none.png')
