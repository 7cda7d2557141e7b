"""The Inferencer with a config of SAM-CP: any classes, patches on the fly, finer classes."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from toy_samcp import CLASSES
from toy_samcp_prompts import NAMES, ToyBlocks, write_samcp, write_scene

from mmprompt.apis import Inferencer
from mmprompt.apis.cli import find_config
from mmprompt.apis.inference.finer import LEAST_SIDE, cut_out, levels_of, reachable
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.apis.inference.samcp_loading import read_names
from mmprompt.apis.inference.samcp_segmenter import RESULTS, SAMCPSegmenter
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.text_bank import TextBank
from mmprompt.registry import DATASETS, MODELS

LOW = dict(score_threshold=0.1, overlap_threshold=0.1)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return write_samcp(tmp_path_factory.mktemp('samcp'))


@pytest.fixture
def picture(tmp_path):
    return write_scene(tmp_path / 'a.png')


def test_all_results_are_those_of_the_config_s_own_pipeline(trained, picture, tmp_path):
    config, weights = trained
    store = tmp_path / 'p.db'
    with PatchStoreWriter(store, dict(generator='toy-blocks', settings={})) as writer:
        writer.add('a.png', ToyBlocks(4, 5)(picture))
        writer.finish()
    cfg = find_config(config)
    pipeline = [step for step in cfg.test_dataloader.dataset.pipeline]
    pipeline = [pipeline[0], dict(type='LoadPatches', store=str(store)), pipeline[-1]]
    dataset = DATASETS.build(
        dict(type='mmseg.BaseSegDataset', ann_file='', img_suffix='.png', data_root=str(tmp_path),
             metainfo=dict(classes=CLASSES), pipeline=pipeline)
    )  # fmt: skip
    model = MODELS.build(cfg.model)
    model.load_prompt(weights)
    expected = model.eval().test_step(pseudo_collate([dataset[0]]))[0]
    for found in (
        Inferencer(config, weights)(picture),
        Inferencer(config, weights)(tmp_path / 'a.png'),
    ):
        assert list(found) == list(RESULTS)
        semantic = expected.pred_sem_seg.data[0].numpy()
        assert np.array_equal(found['semantic'].to_data_sample().pred_sem_seg.data[0], semantic)
        assert len(np.unique(semantic)) > 2
        ids = expected.pred_panoptic_seg.data[0].numpy()
        assert np.array_equal(found['panoptic'].label_map, ids)
        masks = np.stack([s.mask for s in found['instance'].segments])
        assert np.array_equal(masks, expected.pred_instances.masks.numpy())
        assert found['instance'].scores.tolist() == expected.pred_instances.scores.tolist()
    # A store in place of the generator that the recipe names: the same patches.
    stored = Inferencer(config, weights, patches=store)(tmp_path / 'a.png')
    assert np.array_equal(stored['panoptic'].label_map, ids)
    with pytest.raises(UserError, match='by which stores know it'):
        Inferencer(config, weights, patches=store)(picture)


def test_other_classes_give_what_a_model_of_these_classes_gives(trained, picture):
    config, weights = trained
    texts, things = ['sky', ['car', 'automobile'], 'kite'], ['kite', 'car']
    found = Inferencer(config, weights, texts=texts, things=things)(picture)
    assert found['semantic'].classes == ('sky', 'car', 'kite')
    assert found['panoptic'].things == (1, 2)
    segment = Inferencer(config, weights)
    own = segment(picture)
    segment.ask(texts, things)
    asked = segment(picture)
    assert segment.classes['instance'] == ('sky', 'car', 'kite')
    segment.ask(None)
    back = segment(picture)
    for task in RESULTS:
        assert found[task].scores.tolist() == asked[task].scores.tolist()
        assert own[task].scores.tolist() == back[task].scores.tolist()
    assert {s.category for s in found['instance'].segments} <= {'car', 'kite'}
    cfg = find_config(config)
    cfg.model.update(classes=['sky', 'car', 'kite'])
    cfg.model.head.update(num_classes=3, thing_classes=[1, 2])
    rows = np.load(cfg.model.head.text.array)[[NAMES.index(n) for n in ('sky', 'car', 'kite')]]
    one = Inferencer(config, weights, texts=['sky', 'car', 'kite'], things=things)(picture)
    other = Inferencer(cfg, weights)(picture)
    assert one['semantic'].scores.tolist() == other['semantic'].scores.tolist()
    assert len(rows) == 3 and np.array_equal(one['panoptic'].label_map, other['panoptic'].label_map)


def test_things_are_those_of_the_training_and_known_names(trained):
    config, weights = trained
    segment = Inferencer(config, weights, texts=['sky', 'kite', 'person', 'wheel'])
    assert segment.things['panoptic'] == (1, 2)  # COCO counts kites, the training counted people
    for wrong, told in ((['unicorn'], "found 'unicorn'"), (['head'], "found 'head'")):
        with pytest.raises(UserError, match=told):
            segment.ask(['sky'], wrong)
    segment.ask(['sky', 'person'], ['head'], also=['head'])
    assert segment.things['panoptic'] == ()


def test_only_things_only_stuff_and_no_patches_give_results(trained, picture):
    config, weights = trained

    class Nothing(ToyBlocks):
        def __call__(self, image):
            return super().__call__(image).select([])

    for texts, things in ((['car'], ['car']), (['sky'], [])):
        for generator in (None, Nothing()):
            segment = Inferencer(config, weights, texts=texts, things=things, generator=generator)
            found = segment(picture)
            assert found['semantic'].label_map.shape == picture.shape[:2]
            if not things or generator:
                assert not list(found['instance'].segments)
            if generator:
                assert (found['semantic'].label_map == -1).all()
                assert (
                    not list(found['semantic'].segments) and not found['panoptic'].label_map.any()
                )


def test_finer_classes_lie_inside_their_objects(trained, picture):
    config, weights = trained
    segment = Inferencer(config, weights, texts=['road', 'car'], things=[])
    rules = {'road': ['wheel', 'head'], 'head': ['arm']}
    found = segment.finer(picture, rules, **LOW)
    assert list(found) == ['panoptic', 'finer', 'finer-2']
    coarse = {s.id: s for s in found['panoptic'].segments}
    finer = list(found['finer'].segments)
    assert finer and {s.category for s in finer} <= {'wheel', 'head'}
    for part in finer:
        assert coarse[part.parent].category == 'road'
        assert (coarse[part.parent].mask | ~part.mask).all() and part.area > 0
        assert part.as_dict()['parent'] == part.parent
    heads = {s.id: s for s in finer if s.category == 'head'}
    for part in found['finer-2'].segments:
        assert (heads[part.parent].mask | ~part.mask).all()
    assert segment.classes['panoptic'] == ('road', 'car'), 'the coarse classes are asked again'
    # By hand: the object cut out, enlarged and asked by itself.
    (whole,) = [s for s in coarse.values() if s.category == 'road']
    crop = cut_out(picture, whole.mask)
    alone = Inferencer(config, weights, texts=['wheel', 'head'], things=[])
    parts = alone(crop.pixels, 'panoptic', **LOW)['panoptic']
    x1, y1, x2, y2 = crop.box
    expected = np.zeros(picture.shape[:2], int)
    expected[y1:y2, x1:x2] = crop.back(parts.class_map + 1)
    assert np.array_equal(np.where(whole.mask, expected, 0), found['finer'].class_map + 1)


def test_objects_are_cut_out_with_a_margin_and_enlarged():
    picture = np.zeros((60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:40] = True
    picture[mask] = 200
    crop = cut_out(picture, mask, margin=0.1)
    assert crop.box == (28, 18, 42, 42)
    assert crop.pixels.shape[0] == 80 and abs(crop.pixels.shape[1] - 14 * 80 / 24) <= 1
    assert np.array_equal(crop.back(crop.pixels[..., 0]) > 100, mask[18:42, 28:42])
    whole = cut_out(picture, np.ones_like(mask))
    assert whole.box == (0, 0, 80, 60) and np.array_equal(whole.pixels, picture)
    mask[:] = False
    assert cut_out(picture, mask) is None
    mask[3 : 3 + LEAST_SIDE - 1, :50] = True
    assert cut_out(picture, mask) is None
    mask[3 : 3 + LEAST_SIDE, :50] = True
    assert cut_out(picture, mask).box == (0, 0, 55, 16)


def test_rules_are_sorted_into_levels():
    rules = {'head': ['eye'], 'person': ['head', ['arm', 'forearm']], 'car': ['wheel']}
    first, second = levels_of(rules, ['person', 'car', 'sky'])
    assert first == dict(person=('head', ('arm', 'forearm')), car=('wheel',))
    assert second == dict(head=('eye',))
    told = r"found 'dog'\. The classes are arm, eye, head, person\."
    with pytest.raises(UserError, match=told):
        levels_of({'dog': ['tail'], 'person': ['head', 'arm'], 'head': ['eye']}, ['person'])
    assert reachable({'dog': ['tail'], **rules}, ['person']) == {
        k: rules[k] for k in ('head', 'person')
    }


def test_instances_tell_their_patches_and_what_each_is_alone(trained, picture):
    config, weights = trained
    segment = Inferencer(config, weights)
    found = segment(picture, 'instance', patch_scores=True)['instance']
    store = ToyBlocks(4, 5)(picture).decode()
    told = [s for s in found.segments if s.patches]
    assert told and all(s.score >= 0.3 for s in told)
    for instance in told[:5]:
        rows = [patch['id'] for patch in instance.patches]
        assert (store[rows].any(0) == instance.mask).all()
        scores = [patch['score'] for patch in instance.patches]
        assert scores == sorted(scores, reverse=True)

    class Alone(ToyBlocks):
        def __call__(self, image):
            return super().__call__(image).select([told[0].patches[0]['id']])

    by_itself = Inferencer(config, weights, generator=Alone(4, 5))(picture, 'instance')['instance']
    score = max(s.score for s in by_itself.segments if s.category == told[0].category)
    assert told[0].patches[0]['score'] == pytest.approx(score, abs=1e-5)


def test_names_are_found_in_rows_of_arrays_and_banks(tmp_path):
    rows = torch.randn(4, 6)
    np.save(tmp_path / 'rows.npy', rows[:3].numpy())
    bank = TextBank(['a', 'b', 'c'], rows, 'x')
    bank.save(tmp_path / 'bank.safetensors')
    for file in (tmp_path / 'rows.npy', tmp_path / 'bank.safetensors'):
        texts = read_names(str(file), ['a', 'b', 'c'], ['c', ['a', 'b']], 6)
        assert texts.class_of.tolist() == [0, 1, 1]
        expected = torch.nn.functional.normalize(rows[[2, 0, 1]], dim=-1)
        assert torch.allclose(texts.entries, expected)
        with pytest.raises(UserError, match="'zebra'"):
            read_names(str(file), ['a', 'b', 'c'], ['a', 'zebra'], 6)


def test_no_class_is_none_of_many_classes():
    for count, void in ((3, 255), (255, 255), (256, 256), (300, 300)):
        labels = np.array([[-1, 0, count - 1]])
        parts = torch.from_numpy(labels), torch.zeros(count)
        classes = tuple(map(str, range(count)))
        found = Prediction('x', 'semantic', classes, (), (1, 3), labels, np.zeros(count), parts)
        sample = found.to_data_sample()
        assert sample.pred_sem_seg.data.tolist() == [[[void, 0, count - 1]]]


def test_arrays_are_checked_and_rounded(trained, picture):
    segment = Inferencer(*trained)
    expected = segment(picture)['panoptic'].scores.tolist()
    for same in (picture.astype(np.float32) + 0.3, picture.astype(np.int32)):
        assert segment(np.clip(same, 0, 255))['panoptic'].scores.tolist() == expected
    alpha = np.concatenate([picture, picture[..., :1]], axis=2)
    for wrong, found in (
        (picture[..., 0], r'shape \(64, 96\)'),
        (alpha, r'shape \(64, 96, 4\)'),
        (picture[None], r'shape \(1, 64, 96, 3\)'),
        (picture / 255.0, 'values from 0'),
        (picture.astype(np.float32) * 2, 'values from 0 to'),
        (picture > 3, 'an array of bool'),
    ):
        for call in (segment, lambda array: segment.samcp.predict(array)):
            with pytest.raises(UserError, match=found):
                call(wrong)


def test_options_that_no_generator_would_read_are_refused(trained, tmp_path):
    config, weights = trained
    with pytest.raises(UserError, match=r'options \(rows\) .* found the store .*p.db alone'):
        Inferencer(config, weights, generator=dict(rows=9), patches=tmp_path / 'p.db')
    with pytest.raises(UserError, match='found a built generator'):
        SAMCPSegmenter(find_config(config), weights, generator=ToyBlocks(), options=dict(rows=9))


def test_what_cannot_be_used_is_said(trained, picture, tmp_path):
    config, weights = trained
    for arguments, message in (
        (dict(prompt=None), 'found 0 files'),
        (dict(prompts=[weights]), 'found 2 files'),
        (dict(texts=dict(a=['sky'])), 'found lists of texts by name'),
        (dict(texts=['sky', 'zebra']), "'zebra'"),
        (dict(prompt=tmp_path / 'none.safetensors'), 'none.safetensors'),
        (dict(generator='nothing'), 'or the name of a registered PatchGenerator'),
    ):
        with pytest.raises(UserError, match=message):
            Inferencer(config, **{'prompt': weights, **arguments})
    segment = Inferencer(config, weights)
    for call, message in (
        (lambda: segment(picture, 'depth'), "found 'depth'"),
        (lambda: segment(picture, 'semantic', top_k=3), r'takes the thresholds \[\]'),
        (lambda: segment.finer(picture, {'dog': ['head']}), "found 'dog'"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(UserError, match='with a config of SAM-CP alone'):
        Inferencer('mmprompt://seem-nano_streets', texts=['road'], generator='sam')
