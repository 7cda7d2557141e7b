"""tools/predict.py with a config of SAM-CP."""

import json
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from toy_samcp_prompts import ToyBlocks, write_samcp, write_scene

from mmprompt.apis import Inferencer
from mmprompt.apis.predict.command import main
from mmprompt.apis.predict.options import parse_finer
from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import image_digest
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.datasets.streets.command import main as make_streets


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return write_samcp(tmp_path_factory.mktemp('samcp'))


@pytest.fixture
def run(trained, tmp_path):
    def call(*inputs, options=(), out='out'):
        named = ['--base', trained[0], '--prompts', trained[1], '--out', tmp_path / out]
        return main([*map(str, (*inputs, *named, *options))])

    return call


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


TEXTS = ['--texts', 'sky; road; car, automobile; kite', '--things', 'car; kite']


def test_one_pass_writes_all_results_and_keeps_the_patches(run, trained, tmp_path, monkeypatch):
    picture = write_scene(tmp_path / 'in/a.png')
    write_scene(tmp_path / 'in/sub/b.png', seed=1)
    assert run(tmp_path / 'in', options=TEXTS) == 0
    out = tmp_path / 'out'
    kinds = dict(semantic=3, panoptic=3, instance=2)
    found = [name for name in tree(out / 'texts') if name.endswith(('a.png', 'a.json'))]
    assert {task: sum(name.startswith(task) for name in found) for task in kinds} == kinds
    assert len([name for name in tree(out) if name.startswith('patches/')]) == 2
    segment = Inferencer(*trained, texts=['sky', 'road', ['car', 'automobile'], 'kite'],
                         things=['car', 'kite'])  # fmt: skip
    expected = segment(picture)
    with Image.open(out / 'texts/semantic/labels/a.png') as file:
        labels = np.asarray(file).astype(int)
    assert np.array_equal(np.where(labels == 255, -1, labels), expected['semantic'].label_map)
    with Image.open(out / 'texts/panoptic/labels/a.png') as file:
        assert np.array_equal(np.asarray(file), expected['panoptic'].label_map)
    record = json.loads((out / 'texts/instance/segments/a.json').read_text())
    assert [s['score'] for s in record['segments']] == pytest.approx(
        expected['instance'].scores.tolist(), abs=1e-6
    )
    classes = json.loads((out / 'texts/panoptic/classes.json').read_text())
    assert [(c['name'], c['isthing']) for c in classes['classes']] == [
        ('sky', 0), ('road', 0), ('car', 1), ('kite', 1),
    ]  # fmt: skip
    run_record = json.loads((out / 'texts/run.json').read_text())
    assert run_record['texts'][2] == 'car, automobile'
    assert run_record['patches'] == dict(generator='toy-blocks', settings=dict(rows=4, columns=5))

    # Other texts beside them, without making a patch again.
    def refuse(self, image):
        raise AssertionError('patches were made again')

    monkeypatch.setattr(ToyBlocks, '__call__', refuse)
    assert run(tmp_path / 'in', options=['--texts', 'mine=person; wheel']) == 0
    assert (out / 'mine/panoptic/overlays/sub/b.png').is_file()
    assert run(tmp_path / 'in') == 0
    assert (out / 'trained/semantic/labels/a.png').is_file()


def test_a_second_call_goes_on_and_other_texts_of_that_name_are_refused(run, tmp_path, capsys):
    write_scene(tmp_path / 'in/a.png')
    assert run(tmp_path / 'in', options=TEXTS) == 0
    write_scene(tmp_path / 'in/b.png')
    capsys.readouterr()
    assert run(tmp_path / 'in', options=TEXTS) == 0
    assert '1 predicted (texts: semantic, instance, panoptic), 1 there already' in (
        capsys.readouterr().out
    )
    for options in (['--texts', 'sky'], [*TEXTS, '--generator-options', 'rows=9']):
        assert run(tmp_path / 'in', options=options) == 2
        assert 'made with another' in capsys.readouterr().err


def test_answers_of_another_config_do_not_stand_for_those_of_this_one(
    run, trained, tmp_path, capsys
):
    write_scene(tmp_path / 'in/a.png')
    assert run(tmp_path / 'in', options=TEXTS) == 0
    capsys.readouterr()
    changed = Config.fromfile(trained[0])
    changed.model.test_cfg = dict(panoptic_affinity=0.4)
    changed.dump(tmp_path / 'other.py')
    arguments = [
        '--base',
        tmp_path / 'other.py',
        '--prompts',
        trained[1],
        '--out',
        tmp_path / 'out',
    ]
    assert main([*map(str, (tmp_path / 'in', *arguments)), *TEXTS]) == 2
    assert 'made with another' in capsys.readouterr().err


def test_a_picture_without_an_answer_leaves_the_others_alone(run, tmp_path, capsys):
    for name in 'abcd':
        write_scene(tmp_path / f'in/{name}.png')
    with PatchStoreWriter(tmp_path / 'x.db', dict(generator='toy', settings={})) as writer:
        for name in 'bd':
            path = tmp_path / f'in/{name}.png'
            patches = ToyBlocks()(np.asarray(Image.open(path)))
            writer.add(path.name, patches, digest=image_digest(path))
        writer.finish()
    assert run(tmp_path / 'in', options=['--patches', str(tmp_path / 'x.db')]) == 1
    told = capsys.readouterr()
    assert '2 predicted' in told.out and '2 failed' in told.out
    assert told.err.count('error: ') == 2 and 'a.png' in told.err and 'c.png' in told.err
    made = sorted(p.stem for p in (tmp_path / 'out/trained/panoptic/labels').iterdir())
    assert made == ['b', 'd']


def test_results_inside_the_folder_of_pictures_are_no_pictures(run, tmp_path, capsys):
    write_scene(tmp_path / 'in/a.png')
    lists = ['--texts', 'x=sky; road', '--texts', 'y=kite; car', '--task', 'semantic']
    for done in ('1 predicted', '0 predicted'):
        assert run(tmp_path / 'in', options=lists, out='in/results') == 0
        assert capsys.readouterr().out.count(done) == 2


def test_things_and_finer_classes_may_be_of_any_of_several_lists(run, tmp_path, capsys):
    write_scene(tmp_path / 'a.png')
    lists = ['--texts', 'x=sky; car', '--texts', 'y=road; kite']
    options = [*lists, '--things', 'Kite; car; head', '--finer', 'road: wheel', '--finer',
               'wheel: arm, head']  # fmt: skip
    assert run(tmp_path / 'a.png', options=options) == 0
    out = tmp_path / 'out'
    for name, folders in (('x', []), ('y', ['finer', 'finer-2'])):
        described = json.loads((out / name / 'panoptic/classes.json').read_text())['classes']
        assert [c['isthing'] for c in described] == [0, 1]
        assert sorted(p.name for p in (out / name).glob('finer*')) == folders
    (arm,) = json.loads((out / 'y/finer-2/classes.json').read_text())['classes']
    assert (arm['name'], arm['isthing']) == ('arm', 1), 'by its second name'
    # What one of them cannot do is said before the other writes anything.
    for wrong in (
        ['--texts', 'z=sky; zebra'],
        ['--things', 'unicorn'],
        ['--finer', 'dog: head'],
        ['--texts', 'z=sky; Sky'],
    ):
        assert run(tmp_path / 'a.png', options=[*lists, *wrong], out='none') == 2, wrong
    capsys.readouterr()
    assert run(tmp_path / 'a.png', options=['--texts', 'new=sky', '--texts', 'y=sky']) == 2
    assert 'made with another' in capsys.readouterr().err
    assert not (tmp_path / 'none').exists() and not (out / 'new').exists()


def test_one_task_finer_classes_and_scores_of_patches(run, tmp_path):
    write_scene(tmp_path / 'a.png')
    options = ['--texts', 'sky; kite', '--task', 'panoptic', '--score-threshold', '0.1',
               '--overlap-threshold', '0', '--finer', 'sky: wheel; head', '--finer',
               'head: arm', '--things', 'arm']  # fmt: skip
    assert run(tmp_path / 'a.png', options=options) == 0
    folder = tmp_path / 'out/texts'
    assert sorted(p.name for p in folder.iterdir()) == ['finer', 'finer-2', 'panoptic', 'run.json']
    coarse, finer = (
        json.loads((folder / name / 'segments/a.json').read_text())['segments']
        for name in ('panoptic', 'finer')
    )
    skies = {s['id'] for s in coarse if s['category'] == 'sky'}
    assert finer and {s['parent'] for s in finer} <= skies
    things = json.loads((folder / 'finer-2/classes.json').read_text())['classes']
    assert [(c['name'], c['isthing']) for c in things] == [('arm', 1)]
    options = ['--task', 'instance', '--patch-scores', '--top-k', '7']
    assert run(tmp_path / 'a.png', options=options, out='other') == 0
    record = json.loads((tmp_path / 'other/trained/instance/segments/a.json').read_text())
    assert len(record['segments']) == 7
    for segment in record['segments']:
        scores = [patch['score'] for patch in segment['patches']]
        assert len(scores) > 0 and all(0 <= score <= 1 for score in scores)


def test_the_weights_may_be_a_whole_checkpoint(trained, tmp_path, capsys):
    import torch

    from mmprompt.apis.cli import find_config
    from mmprompt.registry import MODELS

    model = MODELS.build(find_config(trained[0]).model)
    model.load_prompt(trained[1])
    path = tmp_path / 'iter_3.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    picture = write_scene(tmp_path / 'a.png')
    arguments = [tmp_path / 'a.png', '--base', trained[0], '--prompts', path, '--out']
    arguments = [str(a) for a in (*arguments, tmp_path / 'out')]
    assert main(arguments) == 2
    assert 'found no patches with the weights. Give --generator' in capsys.readouterr().err
    assert main([*arguments, '--generator', 'ToyBlocks', '--generator-options', 'rows=4',
                 'columns=5']) == 0  # fmt: skip
    with Image.open(tmp_path / 'out/trained/panoptic/labels/a.png') as file:
        expected = Inferencer(*trained)(picture, 'panoptic')['panoptic'].label_map
        assert np.array_equal(np.asarray(file), expected)
    state = model.state_dict()
    state.pop('head.classifier.prior')
    torch.save(dict(state_dict=state), path)
    assert main([*arguments, '--generator', 'ToyBlocks']) == 2
    assert '1 tensors of it' in capsys.readouterr().err


def test_felzenszwalb_s_patches_of_a_street(run, tmp_path):
    pytest.importorskip('skimage')
    scenes = ['--condition', 'clear', '--split', 'test', '--num', '1', '--out', str(tmp_path / 's')]
    make_streets(scenes)
    (scene,) = (tmp_path / 's').rglob('*leftImg8bit.png')
    shutil.copy(scene, tmp_path / 'street.png')
    options = ['--generator', 'felzenszwalb', '--generator-options', 'scales=[200.0]', '--task',
               'semantic']  # fmt: skip
    assert run(tmp_path / 'street.png', options=options) == 0
    (kept,) = (tmp_path / 'out/patches').iterdir()
    assert kept.name.startswith('felzenszwalb-')
    with Image.open(tmp_path / 'out/trained/semantic/labels/street.png') as file:
        assert file.size == Image.open(scene).size and len(np.unique(file)) > 1


def test_options_that_cannot_be_used_are_sentences(run, tmp_path, capsys):
    write_scene(tmp_path / 'a.png')
    for options, message in (
        (['--short-side', '32'], 'whose test pipeline'),
        (['--batch', '2'], 'one image at a time'),
        (['--texts', 'sky; zebra'], "'zebra'"),
        (['--texts', 'patches=sky'], "a name other than 'patches'"),
        (['--things', 'unicorn'], "found 'unicorn'"),
        (['--finer', 'dog: head'], "found 'dog'"),
        (['--finer', 'sky: zebra'], "'zebra'"),
        (['--finer', 'sky'], "such as 'person: head; arm'"),
        (['--finer', 'sky: kite', '--finer-margin', '-1'], 'a share of 0 or more, found -1'),
        (['--finer', 'sky: kite', '--finer-margin', 'nan'], 'a share of 0 or more, found nan'),
        (['--top-k', '-1'], 'from 0 up, found -1'),
        (['--texts', '..=sky'], "'..=sky'"),
        (['--task', 'semantic', '--patch-scores'], 'patch_scores: expected'),
        (['--task', 'semantic', '--top-k', '3'], r'takes the thresholds []'),
        (['--patches', 'none.db'], 'none.db does not exist'),
        (['--patches', 'none.db', '--points-per-side', '9'], 'Name the generator, too'),
        (['--generator-options', 'depth=3'], 'takes no depth'),
    ):
        assert run(tmp_path / 'a.png', options=options) == 2, options
        said = capsys.readouterr().err
        assert message in said and said.count('\n') == 1, (options, said)
    assert not (tmp_path / 'out').exists()
    arguments = [str(tmp_path / 'a.png'), '--base', 'mmprompt://seem-nano_streets', '--texts',
                 'road', '--out', str(tmp_path / 'out')]  # fmt: skip
    for options in (['--generator', 'sam'], ['--patch-scores'], ['--finer', 'road: sky']):
        assert main([*arguments, *options]) == 2
        assert 'expected a config of SAM-CP as --base' in capsys.readouterr().err


def test_finer_rules_are_parsed():
    assert parse_finer(['person: head; arm, forearm', 'car:wheel']) == dict(
        person=['head', ['arm', 'forearm']], car=['wheel']
    )
    for wrong in (['person'], [': head'], ['person: ;'], ['a: b', 'a: c']):
        with pytest.raises(UserError, match='--finer: expected a class'):
            parse_finer(wrong)
