"""Generators of the SAM family, from files and folders, and what they say of wrong ones."""

import sys

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from tiny_transformers import SIDE, tiny
from toy_sam import toy_sam, write_sam

from mmprompt.common.checkpoint import load_tensors
from mmprompt.common.errors import UserError
from mmprompt.foundation.patch_generators import GENERATORS, PatchGenerator
from mmprompt.foundation.sam.checkpoint import CLASSIFIER, read_sam
from mmprompt.foundation.sam.everything import EverythingSettings, everything
from mmprompt.foundation.sam.prompter import SAMPrompter
from mmprompt.foundation.sam.sam import SAM

LOOSE = dict(points_per_side=3, min_quality=0.0, min_stability=0.2, nms_iou=0.99)
NAMES = dict(SamModel='SAMPatches', Sam2Model='SAM2Patches')


def image():
    return np.random.default_rng(0).integers(0, 255, (40, 70, 3)).astype(np.uint8)


def mobile(tmp_path, **more):
    path = write_sam(tmp_path / 'sam.pt')
    kind = dict(type='MobileSAMPatches', weights=str(path), side=128, parts=toy_sam())
    return MODELS.build({**kind, **LOOSE, **more})


@pytest.fixture
def transformers():
    return pytest.importorskip('transformers')


def test_every_short_name_is_registered():
    for name, kind in GENERATORS.items():
        generator = MODELS.get(kind)
        assert issubclass(generator, PatchGenerator) and generator.name == name


def test_mobile_sam_reads_its_file(tmp_path):
    generator = mobile(tmp_path, batch=2)
    model = SAM.from_checkpoint(tmp_path / 'sam.pt', **toy_sam())
    expected = everything(SAMPrompter(model, 128), image(), EverythingSettings(**LOOSE))
    assert generator(image()).rles == expected.rles


def test_all_tensors_of_the_file_are_accounted_for(tmp_path):
    path = write_sam(tmp_path / 'sam.pt')
    everything_there = set(load_tensors(path)[0])
    assert len(read_sam(path)) == len(everything_there - set(CLASSIFIER))
    tensors = torch.load(path, weights_only=True)
    torch.save({**tensors, 'image_encoder.head.scale': torch.ones(1)}, path)
    with pytest.raises(UserError, match=r'extra 1: image_encoder\.head\.scale'):
        SAM.from_checkpoint(path, **toy_sam())


def test_settings_say_what_decides(tmp_path):
    first, more, other = (mobile(tmp_path, **s) for s in ({}, {'batch': 9}, {'denser': 1}))
    assert first.settings() == more.settings() != other.settings()
    assert first.settings()['points_per_side'] == 3 and first.settings()['side'] == 128
    stirred = mobile(tmp_path)
    write_sam(tmp_path / 'sam.pt', seed=1)
    assert first.settings() != stirred.settings()


def test_half_precision_gives_nearly_the_same(tmp_path):
    fine, coarse = mobile(tmp_path), mobile(tmp_path, dtype='bfloat16')
    a, b = fine(image()).decode(), coarse(image()).decode()
    assert len(a) and max((a[0] == mask).mean() for mask in b) > 0.9


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (dict(side=100), 'multiple of 16'),
        (dict(dtype='float8'), 'float32'),
        (dict(min_quality=2), 'min_quality'),
        (dict(points=3), 'points_per_side.*found .points.'),
    ],
)
def test_wrong_arguments(tmp_path, wrong, said):
    with pytest.raises(UserError, match=said):
        mobile(tmp_path, **wrong)


def test_no_such_file_says_where_it_comes_from(tmp_path):
    generator = MODELS.build(dict(type='MobileSAMPatches', weights=str(tmp_path / 'no.pt')))
    with pytest.raises(UserError, match=r'no\.pt.*https://github\.com/ChaoningZhang'):
        generator.settings()


@pytest.mark.parametrize('kind', list(NAMES))
def test_models_of_transformers(transformers, tmp_path, kind):
    model = tiny(transformers, kind)
    model.save_pretrained(tmp_path)
    generator = MODELS.build(dict(type=NAMES[kind], weights=str(tmp_path), **LOOSE))
    found = generator(image())
    assert found.size == (40, 70) and len(found) and generator.settings()['side'] == SIDE
    # Each mask is the library's own for one of the points.
    pixels = generator._built[0].see(image()).features
    stretch = kind == 'Sam2Model'
    shown = np.array([SIDE, SIDE if stretch else round(40 * SIDE / 70)])
    grid = (np.stack(np.meshgrid(range(3), range(3)), -1).reshape(-1, 2) + 0.5) / 3
    points = torch.tensor(grid * shown, dtype=torch.float32)[None, :, None]
    with torch.no_grad():
        answer = model(image_embeddings=pixels, input_points=points)
    logits = answer.pred_masks[0].flatten(0, 1)[None]
    if not stretch:
        logits = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode='bilinear')
        logits = logits[..., : shown[1], :]
    whole = torch.nn.functional.interpolate(logits, (40, 70), mode='bilinear')[0] > 0
    theirs = whole.flatten(1).numpy()
    for mask in found.decode().reshape(len(found), -1):
        assert (theirs == mask).mean(1).max() > 0.999


@pytest.mark.parametrize('kind', list(NAMES))
def test_weights_that_cannot_be_had(transformers, tmp_path, kind, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    missing = MODELS.build(dict(type=NAMES[kind], weights='nobody/no-such-sam'))
    with pytest.raises(UserError, match='https://huggingface.co/nobody/no-such-sam.*folder'):
        missing.settings()
    model = tiny(transformers, kind)
    state = model.state_dict()
    del state['mask_decoder.iou_token.weight']
    model.save_pretrained(tmp_path, state_dict=state)
    partial = MODELS.build(dict(type=NAMES[kind], weights=str(tmp_path)))
    with pytest.raises(UserError, match=r'1 missing.*mask_decoder\.iou_token'):
        partial.settings()


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(UserError, match='pip install "transformers'):
        MODELS.build(dict(type='SAMPatches')).settings()
