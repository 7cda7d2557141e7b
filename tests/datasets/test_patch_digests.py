"""Patches are those of the very file that a pipeline reads."""

import numpy as np
import pytest
from PIL import Image
from toy_patches import SIZE, toy_scene, write_toy_patches

from mmprompt.common.errors import UserError
from mmprompt.datasets import patches
from mmprompt.datasets.patches import LoadPatches


def load(path, store, **more):
    results = dict(img_path=str(path), img=np.zeros((*SIZE, 3), np.uint8), ori_shape=SIZE)
    return LoadPatches(store, **more)(results)


def test_patches_of_another_split_are_refused(tmp_path):
    """Keys and sizes of the splits are the same."""
    stores = {s: write_toy_patches(tmp_path, 1, s, i) for i, s in enumerate(('train', 'val'))}
    for split in stores:
        name = 'toy/toy_000000_000000_leftImg8bit.png'
        image = tmp_path / 'leftImg8bit' / split / name
        for other, store in stores.items():
            if other == split:
                assert 'patch_set' in load(image, store)
                continue
            with pytest.raises(UserError) as caught:
                load(image, store)
            said = str(caught.value)
            assert str(image) in said and str(store) in said and 'another split' in said
            assert 'tools/generate_patches.py CONFIG --generator toy' in said
            assert 'patch_set' in load(image, store, check_image=False)


def test_patches_of_an_image_that_was_made_anew_are_refused(tmp_path):
    store = write_toy_patches(tmp_path, 1)
    image = next(tmp_path.rglob('*_leftImg8bit.png'))
    load(image, store)
    Image.fromarray(toy_scene(7)[0]).save(image)
    with pytest.raises(UserError, match='found another file .* make their patches anew: python'):
        load(image, store)


def test_an_image_is_read_for_its_digest_once(tmp_path, monkeypatch):
    store, read = write_toy_patches(tmp_path, 1), []
    image = next(tmp_path.rglob('*_leftImg8bit.png'))
    digest = patches.image_digest
    monkeypatch.setattr(patches, 'image_digest', lambda path: read.append(path) or digest(path))
    step = LoadPatches(store)
    for _ in range(2):
        step(dict(img_path=str(image), img=np.zeros((*SIZE, 3), np.uint8), ori_shape=SIZE))
    assert read == [str(image)]


def test_images_of_a_storage_that_is_no_disk_are_believed(tmp_path):
    store = write_toy_patches(tmp_path, 1)
    found = load('s3://bucket/toy/toy_000000_000000_leftImg8bit.png', store)
    assert len(found['patch_set'])
