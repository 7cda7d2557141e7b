"""Where the patches of a picture come from."""

import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from toy_samcp_prompts import ToyBlocks

from mmprompt.apis.inference.samcp_loading import training_patches
from mmprompt.apis.patches.source import PatchSource, differences, generator_like
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.foundation.patch_generators import FelzenszwalbPatches, MobileSAMPatches


def picture(size=(12, 20), grey=9):
    return np.full((*size, 3), grey, np.uint8)


def test_patches_are_made_once_for_the_same_pixels_and_settings(tmp_path):
    generator = ToyBlocks()
    first = PatchSource(generator, folder=tmp_path)(picture())
    again = ToyBlocks()
    kept = PatchSource(again, folder=tmp_path)(picture(), tmp_path / 'of any name.png')
    assert (generator.asked, again.asked) == (1, 0)
    assert kept.rles == first.rles and np.array_equal(kept.regions, first.regions)
    for other in (picture(grey=8), picture((20, 12))):
        PatchSource(again, folder=tmp_path)(other)
    assert again.asked == 2
    denser = ToyBlocks(rows=5)
    assert len(PatchSource(denser, folder=tmp_path)(picture())) == 16


def test_a_store_that_cannot_be_read_is_said_beside_a_generator(tmp_path):
    with pytest.raises(UserError, match=r'typo\.db does not exist'):
        PatchSource(ToyBlocks(), tmp_path / 'typo.db')


def test_a_damaged_file_is_made_anew(tmp_path):
    source = PatchSource(ToyBlocks(), folder=tmp_path)
    source(picture())
    (file,) = tmp_path.rglob('*.patches')
    file.write_bytes(file.read_bytes()[:-3])
    assert len(source(picture())) == 7 and source.generator.asked == 2
    source(picture())
    assert source.generator.asked == 2


def test_a_store_is_asked_first_and_its_answers_are_checked(tmp_path):
    store, path = tmp_path / 'x.db', tmp_path / 'images/a.png'
    path.parent.mkdir()
    Image.fromarray(picture()).save(path)
    with PatchStoreWriter(store, dict(generator='toy', settings={})) as writer:
        writer.add('a.png', PatchSet.from_masks(np.ones((3, 12, 20), bool)))
        writer.finish()
    alone = PatchSource(store=store)
    assert len(alone(picture(), path)) == 3
    assert alone.facts() == dict(store=dict(generator='toy', settings={}))
    with pytest.raises(UserError, match=r'expected .* 20x12 pixels .* found .* 12x20 pixels'):
        alone(picture((20, 12)), path)
    with pytest.raises(UserError, match='by which stores know it'):
        alone(picture())
    with pytest.raises(UserError, match=r'no patches of .*b\.png.* give --generator'):
        alone(picture(), tmp_path / 'b.png')
    both = PatchSource(ToyBlocks(), store)
    assert len(both(picture(), path)) == 3 and len(both(picture(), tmp_path / 'b.png')) == 7
    assert len(both(picture())) == 7
    assert len(both(picture((20, 12)), path)) == 7, 'of another size: made'
    with pytest.raises(UserError, match='found neither. Give --generator NAME or --patches'):
        PatchSource()


def test_patches_of_another_picture_of_the_same_name_are_not_taken(tmp_path):
    store = tmp_path / 'x.db'
    mine, other = tmp_path / 'mine/1.png', tmp_path / 'other/1.png'
    for path, grey in ((mine, 9), (other, 200)):
        path.parent.mkdir()
        Image.fromarray(picture(grey=grey)).save(path)
    with PatchStoreWriter(store, dict(generator='toy', settings={})) as writer:
        writer.add('1.png', PatchSet.from_masks(np.ones((3, 12, 20), bool)), image_digest(mine))
        writer.finish()
    alone = PatchSource(store=store)
    assert len(alone(picture(), mine)) == 3
    digest = image_digest(other)
    with pytest.raises(UserError, match=f'other/1.png: expected .*{digest:08x}, found'):
        alone(picture(grey=200), other)
    both = PatchSource(ToyBlocks(), store)
    assert len(both(picture(), mine)) == 3 and len(both(picture(grey=200), other)) == 7
    believed = PatchSource(store=store, check_image=False)
    assert len(believed(picture(grey=200), other)) == 3


def test_the_generator_of_a_training_is_built_again():
    settings = FelzenszwalbPatches(scales=(7, 40), min_size=3).settings()
    trained = dict(generator='felzenszwalb', settings=settings)
    assert generator_like(trained, {}).settings() == settings
    assert generator_like(trained, dict(min_size=5)).settings() == {**settings, 'min_size': 5}
    # Of weights only the content is known; where they lie is asked or the generator's default.
    sam = dict(weights='0123', side=512, points_per_side=12, crops='none', dtype='float32')
    built = generator_like(dict(generator='mobile-sam', settings=sam), dict(points_per_side=9))
    assert isinstance(built, MobileSAMPatches) and built.weights == 'weights/mobile_sam.pt'
    assert (built.side, built.everything.points_per_side, built.everything.crops) == (
        512,
        9,
        'none',
    )
    # The side of SAM is that of its weights and no argument.
    assert generator_like(dict(generator='sam', settings=sam), {}).everything.crops == 'none'
    for unknown in (None, {}, dict(generator='import')):
        with pytest.raises(UserError, match='Give --generator, one of sam, sam2'):
            generator_like(unknown, {})


def test_the_store_that_would_know_the_generator_is_named(tmp_path):
    step = dict(type='LoadPatches', store='data/none.db')
    config = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[step]))))
    trained = training_patches(config)
    path = re.escape(str(Path('data/none.db').absolute()))
    lost = f"store of the config's training, {path}, not there"
    with pytest.raises(UserError, match=f'no patches with the weights, and the {lost}. Give'):
        generator_like(trained, {})
    assert differences(trained, dict(generator='a', settings={})) == []
    with PatchStoreWriter(tmp_path / 'x.db', dict(generator='toy', settings={})) as writer:
        writer.finish()
    config.train_dataloader.dataset.pipeline[0].store = str(tmp_path / 'x.db')
    assert training_patches(config) == dict(generator='toy', settings={})
    assert training_patches(Config()) is None


def test_what_was_made_otherwise_is_told():
    trained = dict(generator='a', settings=dict(points=(3, 4), side=5, old=1))
    assert differences(trained, dict(generator='b', settings={})) == ['by b, not by a']
    now = dict(generator='a', settings=dict(points=[3, 4], side=6, new=2))
    assert differences(trained, now) == ['side 6, not 5']
    assert differences(None, now) == []
