"""tools/predict.py: what it writes, goes on with, and refuses."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from prompt_files import FEW, write_picture, write_video
from pycocotools import mask as coco_mask

from mmprompt.apis.inference.inferencer import Inferencer
from mmprompt.apis.predict import outputs
from mmprompt.apis.predict.command import main, parse_prompts, parse_texts
from mmprompt.common.errors import UserError


@pytest.fixture
def run(toy_prompts, tmp_path):
    base, prompts = toy_prompts

    def call(*inputs, options=(), out='out', names=('streets', 'few')):
        arguments = [*map(str, inputs), '--base', str(base), '--out', str(tmp_path / out)]
        if names:
            arguments += ['--prompts', *(str(prompts[name]) for name in names)]
        return main([*arguments, *options])

    return call


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def test_a_folder_gives_overlays_maps_and_json_for_every_prompt(run, toy_prompts, tmp_path):
    pictures = {
        name: write_picture(tmp_path / f'in/{name}.png', size, seed)
        for seed, (name, size) in enumerate({'a': (40, 56), 'sub/a': (33, 64)}.items())
    }
    assert run(tmp_path / 'in', options=['--texts', 'road; car, truck', '--batch', '2']) == 0
    out = tmp_path / 'out'
    per_set = [f'{kind}/{n}' for kind in ('overlays', 'labels', 'segments') for n in ('a', 'sub/a')]
    expected = {f'{s}/{part}' for s in ('streets', 'few', 'zero-shot') for part in per_set}
    assert {name.rpartition('.')[0] for name in tree(out)} - expected == {
        'run', 'streets/classes', 'few/classes', 'zero-shot/classes',
    }  # fmt: skip
    base, prompts = toy_prompts
    for name, picture in pictures.items():
        found = Inferencer(base, prompts=prompts)(picture)
        for key, prediction in found.items():
            with Image.open(out / key / 'labels' / f'{name}.png') as file:
                assert file.mode == 'P' and np.array_equal(np.asarray(file), prediction.label_map)
            with Image.open(out / key / 'overlays' / f'{name}.png') as file:
                assert file.mode == 'RGB' and file.size == picture.shape[1::-1]
            record = json.loads((out / key / 'segments' / f'{name}.json').read_text())
            assert record['image'] == str(tmp_path / f'in/{name}.png')
            for segment in record['segments']:
                rle = segment['segmentation']
                mask = coco_mask.decode(dict(rle, counts=rle['counts'].encode())).astype(bool)
                assert np.array_equal(mask, prediction.label_map == segment['category_id'])
                assert segment['category'] == prediction.classes[segment['category_id']]
    classes = json.loads((out / 'few/classes.json').read_text())
    assert [c['name'] for c in classes['classes']] == list(FEW)
    assert [c['isthing'] for c in classes['classes']] == [0, 0, 1]


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_segments_and_instances(run, tmp_path, task):
    write_picture(tmp_path / 'a.png')
    options = dict(
        panoptic=['--score-threshold', '0.01', '--overlap-threshold', '0', '--things', 'car'],
        instance=['--top-k', '30'],
    )[task]
    assert run(tmp_path / 'a.png', options=['--task', task, *options]) == 0
    folder = tmp_path / 'out/streets'
    record = json.loads((folder / 'segments/a.json').read_text())
    found = record['segments']
    assert record['task'] == task and found
    if task == 'instance':
        assert not (folder / 'labels').exists() and all(s['isthing'] for s in found)
        return
    assert {s['isthing'] for s in found if s['category'] != 'car'} == {0}
    with Image.open(folder / 'labels/a.png') as file:
        labels = np.asarray(file)
    for segment in found:
        assert segment['area'] == (labels == segment['id']).sum() > 0


def test_a_bad_image_is_named_the_others_go_on_and_the_status_says_so(run, tmp_path, capsys):
    for name in 'abc':
        write_picture(tmp_path / f'in/{name}.png')
    (tmp_path / 'in/b.png').write_bytes((tmp_path / 'in/b.png').read_bytes()[:100])
    assert run(tmp_path / 'in', names=['few']) == 1
    said = capsys.readouterr()
    assert 'b.png: expected a whole image file' in said.err and 'Traceback' not in said.err
    assert '2 predicted (few), 0 there already, 1 failed' in said.out
    assert {'few/labels/a.png', 'few/labels/c.png'} <= set(tree(tmp_path / 'out'))


def test_a_second_call_goes_on_and_force_does_all_again(run, tmp_path, capsys):
    for name in 'ab':
        write_picture(tmp_path / f'in/{name}.png')
    assert run(tmp_path / 'in/a.png', names=['few']) == 0
    record = tmp_path / 'out/few/segments/a.json'
    first = record.stat().st_mtime_ns
    capsys.readouterr()
    assert run(tmp_path / 'in', names=['few']) == 0
    assert '1 predicted (few), 1 there already' in capsys.readouterr().out
    assert record.stat().st_mtime_ns == first
    os.utime(tmp_path / 'in/b.png', (0, 0))  # changed since
    assert run(tmp_path / 'in', names=['few']) == 0
    assert '1 predicted (few), 1 there already' in capsys.readouterr().out
    assert run(tmp_path / 'in', names=['few'], options=['--force']) == 0
    assert '2 predicted (few), 0 there already' in capsys.readouterr().out


def test_what_is_there_otherwise_is_not_written_over(run, tmp_path, capsys):
    write_picture(tmp_path / 'in/a.png')
    write_picture(tmp_path / 'other/a.png')
    assert run(tmp_path / 'in', names=['few']) == 0
    before = tree(tmp_path / 'out')
    assert run(tmp_path / 'in', names=['few'], options=['--short-side', '32']) == 2
    assert 'found predictions made with another short_side' in capsys.readouterr().err
    assert run(tmp_path / 'in', names=['streets']) == 2
    assert 'made with another sets' in capsys.readouterr().err
    assert run(tmp_path / 'other', names=['few']) == 1
    assert f'found those of {tmp_path}/in/a.png' in capsys.readouterr().err
    assert tree(tmp_path / 'out') == before
    (tmp_path / 'file').write_text('')
    assert run(tmp_path / 'in', out='file') == 2
    assert 'expected a folder, found a file' in capsys.readouterr().err


def test_frames_of_a_video_are_numbered_and_continued(run, tmp_path, capsys):
    write_video(tmp_path / 'drive.avi')
    assert run(tmp_path / 'drive.avi', names=['few'], options=['--batch', '2']) == 0
    labels = [f'few/labels/drive/{i:06d}.png' for i in range(5)]
    assert [name for name in tree(tmp_path / 'out') if 'labels' in name] == labels
    (tmp_path / 'out/few/segments/drive/000003.json').unlink()
    capsys.readouterr()
    assert run(tmp_path / 'drive.avi', names=['few']) == 0
    assert '2 predicted (few), 3 there already' in capsys.readouterr().out


def test_everything_is_in_the_frame_that_is_viewed(run, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    write_picture(tmp_path / 'a.png', (40, 56), exif=exif)
    assert run(tmp_path / 'a.png', names=['few']) == 0
    for kind in ('overlays', 'labels'):
        with Image.open(tmp_path / f'out/few/{kind}/a.png') as file:
            assert file.size == (40, 56)
    record = json.loads((tmp_path / 'out/few/segments/a.json').read_text())
    assert (record['height'], record['width']) == (56, 40)


def test_a_crash_while_writing_leaves_no_half_file_and_is_done_again(run, tmp_path, monkeypatch):
    write_picture(tmp_path / 'a.png')

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, 'label_image', stop)
    assert run(tmp_path / 'a.png', names=['few']) == 130
    assert not [n for n in tree(tmp_path / 'out') if n.endswith('.tmp') or 'segments' in n]
    monkeypatch.undo()
    assert run(tmp_path / 'a.png', names=['few']) == 0
    assert 'few/segments/a.json' in tree(tmp_path / 'out')


def test_options_that_cannot_be_used_are_sentences(run, tmp_path, capsys):
    picture = tmp_path / 'a.png'
    write_picture(picture)
    for options, message in (
        (['--top-k', '3'], "task 'semantic' takes the thresholds []"),
        (['--batch', '0'], 'from 1 up, found 0'),
        (['--texts', 'road;'], "found 'road;'"),
        (['--texts', 'zyzzyva'], 'zyzzyva'),
        (['--things', 'unicorn'], "found 'unicorn'"),
    ):
        assert run(picture, options=options) == 2
        said = capsys.readouterr().err
        assert message in said and said.startswith('error: ') and said.count('\n') == 1
    assert run(tmp_path / 'none.png') == 2
    assert run(picture, names=()) == 2
    assert 'neither prompt files nor class names' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_texts_and_prompts_are_parsed(tmp_path):
    assert parse_texts(['road; sky ;car, automobile', 'mine=dog']) == {
        'zero-shot': ['road', 'sky', ['car', 'automobile']],
        'mine': ['dog'],
    }
    for wrong in (['road;;sky'], [''], ['a=road', 'a=sky']):
        with pytest.raises(UserError, match='--texts: expected class names'):
            parse_texts(wrong)
    odd = tmp_path / 'x=y.safetensors'
    odd.write_text('')
    assert parse_prompts([str(odd), 'b.safetensors']) == [str(odd), 'b.safetensors']
    assert parse_prompts([str(odd), 'b=c/d.safetensors']) == {
        'x=y': str(odd),
        'b': 'c/d.safetensors',
    }
    with pytest.raises(UserError, match="found 'a' twice"):
        parse_prompts(['a=x', 'a=y'])
