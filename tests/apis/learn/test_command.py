"""A folder of images and masks, learned from in one command, and every mistake said before."""

import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from mmcv.image import imread
from PIL import Image
from workplace import refused

from mmprompt.apis.cli import find_config
from mmprompt.apis.learn import command as module
from mmprompt.apis.learn.classes_file import read_classes
from mmprompt.apis.learn.your_data import Sources, read_data
from mmprompt.apis.predict import command as predict
from mmprompt.apis.test import test as measure
from mmprompt.apis.train import train
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile

SIZE = (32, 48)


# ----------------------------------------------------------------- classes.txt
def test_every_way_to_write_a_class(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text(
        '# numbers and colours\n'
        '7: road | street  #804080   # a comment\n'
        '0: C#  1 2 3\n'
        '255: traffic sign 10, 20, 30\n'
    )
    classes = read_classes(path)
    assert classes.words == (('road', 'street'), ('C#',), ('traffic sign',))
    assert classes.texts == (['road', 'street'], 'C#', 'traffic sign')
    assert classes.values == {7: 0, 0: 1, 255: 2}
    assert classes.colours == ((128, 64, 128), (1, 2, 3), (10, 20, 30))
    path.write_text('road\nsky\n')
    assert read_classes(path).values == {0: 0, 1: 1}


@pytest.mark.parametrize(
    'text, message',
    [
        ('0 Sky 128,128,128\n1 Road 1,1,1\n', 'line 1: .*a number before it'),
        ('road\nsky #00ff00\n', 'a colour in every line or in none, found none in line 1'),
        ('1: road\n1: sky\n', 'another number for every class, found 1 in line 1 and line 2'),
        ('road 1 1 1\nsky 1 1 300\n', 'line 2: .*colour of 0 to 255'),
        ('road\n', '2 to 255 classes, found 1'),
        ('road\nRoad\n', 'every class once'),
        ('road #80\nsky\n', 'space on both sides'),
        ('road\n\nsky\n', 'blank line 2'),
    ],
)
def test_ambiguous_lists_are_refused(tmp_path, text, message):
    path = tmp_path / 'classes.txt'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(path)


# --------------------------------------------------------------------- folders
def test_missing_masks_are_all_named_or_left_out(place, capsys):
    for i in (2, 5):
        (place.root / f'masks/street_{i}.png').unlink()
    line = refused(place, capsys)
    assert 'none for 2: street_2, street_5' in line and '--skip-unlabelled' in line
    assert place.run('--check', '--skip-unlabelled') == 0
    assert 'images: 3 train, 1 val, 2 test' in capsys.readouterr().out
    assert not place.out.exists()


def test_sizes_and_damage_are_said_of_all_files(place, capsys):
    place.save(np.zeros((32, 40), np.uint8), 'masks/street_3.png')
    (place.root / 'photos/street_6.png').write_bytes(b'\x89PNG of nothing')
    line = refused(place, capsys)
    assert 'street_3.png: expected 48x32 pixels' in line and 'found 40x32' in line
    assert '(1 more have errors: street_6.png)' in line


def test_strange_values_jpegs_and_doubles(place, capsys):
    label = place.label(4).copy()
    label[:2, :3] = 9
    place.save(label, 'masks/street_4.png')
    assert f'values: 9 (6 pixels, first in {place.root}/masks/street_4.png)' in refused(
        place, capsys
    )
    assert place.run('--check', '--ignore', '255,9') == 0
    place.save(np.zeros((*SIZE, 3), np.uint8), 'photos/street_4.jpg')
    assert 'street_4.jpg and street_4.png' in refused(place, capsys, '--ignore', '9')
    (place.root / 'photos/street_4.jpg').unlink()
    (place.root / 'masks/street_4.png').unlink()
    place.save(label, 'masks/street_4.jpg')
    assert 'found JPEG, which blurs' in refused(place, capsys, '--ignore', '9')


def test_masks_that_count_from_one_and_masks_of_0_and_255(place, capsys):
    for i in range(8):
        place.save(place.label(i) + 1, f'masks/street_{i}.png')
    assert 'If masks count from 1' in refused(place, capsys)
    assert "a value that is no class, found that of 'car'" in refused(
        place, capsys, '--ignore', '2'
    )
    for i in range(8):
        place.save(np.where(place.label(i) == 1, 0, 255).astype(np.uint8), f'masks/street_{i}.png')
    assert '255 is known to be a class or to be ignored' in refused(place, capsys)
    (place.root / 'classes.txt').write_text('0: road\n255: car\n')
    assert place.run('--check') == 0


def test_a_class_that_is_never_there_is_a_warning(place, capsys):
    (place.root / 'classes.txt').write_text('road\nsky\ncar\nbus\n')
    assert place.run('--check') == 0
    assert 'note: no image shows bus' in capsys.readouterr().out


def test_words_and_folders_and_numbers(place, capsys):
    (place.root / 'classes.txt').write_text('road\nsky\nwalrus | zebra\n')
    line = refused(place, capsys)
    assert "'walrus', 'zebra'" in line and 'full base' in line
    (place.root / 'classes.txt').write_text('road\nsky\ncar\n')
    assert 'found no such folder' in refused(place, capsys, '--images', place.root / 'none')
    inside = ['--out', place.root / 'photos/out']
    assert 'outside of --images' in refused(place, capsys, *inside)
    assert '--mask-suffix' in refused(place, capsys, '--masks', place.root / 'photos')
    assert 'sum to 100' in refused(place, capsys, '--parts', '60,10,40')
    assert 'k=9' in refused(place, capsys, '--shots', '9')
    assert 'at least 3' in refused(place, capsys, '--group', 'street')
    assert 'found neither' in refused(place, capsys, masks=False)
    place.out.mkdir()
    (place.out / 'notes.txt').write_text('mine')
    assert place.run() == 2
    assert 'found other files' in capsys.readouterr().err
    (place.out / 'configs').mkdir()
    (place.out / 'configs/mine.py').write_text('mine')
    assert place.run('--force') == 2
    assert 'found configs, which this command did not make' in capsys.readouterr().err
    assert (place.out / 'configs/mine.py').read_text() == 'mine'


def test_masks_beside_their_images(place, capsys):
    for i in range(8):
        mask = place.root / f'masks/street_{i}.png'
        mask.rename(place.root / f'photos/street_{i}_mask.png')
    (place.root / 'masks').rmdir()
    (place.root / 'photos/masks').mkdir()
    same = ['--masks', place.root / 'photos', '--mask-suffix', '_mask']
    assert place.run('--check', *same) == 0
    assert 'images: 5 train, 1 val, 2 test' in capsys.readouterr().out


@pytest.mark.parametrize('orientation', range(2, 9))
@pytest.mark.parametrize('drawn', ['viewed', 'stored'])
def test_exif_turns_masks_as_it_turns_images(tmp_path, orientation, drawn):
    stored = np.zeros((*SIZE, 3), np.uint8)
    stored[4:12, 6:30] = 250
    exif = Image.Exif()
    exif[274] = orientation
    for folder in ('photos', 'masks'):
        (tmp_path / folder).mkdir()
    Image.fromarray(stored).save(tmp_path / 'photos/a.jpg', exif=exif, quality=95)
    viewed = imread(str(tmp_path / 'photos/a.jpg'))[..., 0] > 128  # what training loads
    mask = stored[..., 0] > 128 if drawn == 'stored' else viewed
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / 'masks/a.png')
    (tmp_path / 'classes.txt').write_text('road\ncar\n')
    sources = Sources(tmp_path / 'photos', tmp_path / 'classes.txt', tmp_path / 'masks')
    if orientation < 5:  # then the sizes do not tell
        with pytest.raises(UserError, match='--masks-drawn viewed or stored'):
            read_data(sources, None)
        sources = dataclasses.replace(sources, masks_drawn=drawn)
    data = read_data(sources, tmp_path / 'labels')
    label = np.asarray(Image.open(tmp_path / 'labels/a.png'))
    assert (label == viewed).mean() > 0.97  # JPEG blurs the edge
    assert bool(data.notes) == (drawn == 'stored')


# ------------------------------------------------------------------ the command
def test_the_whole_command(place, capsys, monkeypatch):
    for i in range(4):  # half of the photographs are upright
        for name in (f'photos/street_{i}.png', f'masks/street_{i}.png'):
            place.save(np.asarray(Image.open(place.root / name)).swapaxes(0, 1).copy(), name)
    assert place.run('--quick', '--short-side', 32) == 0
    out = capsys.readouterr().out
    names = ['labels', 'splits', 'configs', 'manifest.json', 'table.md', 'table.csv']
    names += ['ssprompt/prompt.safetensors', 'pictures/scenes_1.png', 'pictures/weights.png']
    assert all((place.out / name).exists() for name in names)
    table = (place.out / 'table.csv').read_text().splitlines()
    assert table[0] == 'class,test images,zero-shot,SSPrompt'
    # Per-class numbers are those whose mean is the mIoU.
    rows = [line.split(',') for line in table[1:5]]
    assert [row[0] for row in rows] == ['road', 'sky', 'car', 'mIoU']
    for column in (2, 3):
        values = [float(row[column]) for row in rows[:3] if row[column] != '-']
        assert np.mean(values) == pytest.approx(float(rows[3][column]), abs=0.011)
    manifest = json.loads((place.out / 'manifest.json').read_text())
    assert manifest['settings']['seed'] == 0
    assert sorted(sum(manifest['parts'].values(), [])) == [f'street_{i}.png' for i in range(8)]

    # The written configs are the run: plain training and testing give its numbers.
    cfg = find_config(place.out / 'configs/ssprompt.py')
    cfg.work_dir = str(place.root / 'again')
    train(cfg)
    prompts = [
        PromptFile.load(folder / 'prompt.safetensors').tensors
        for folder in (place.out / 'ssprompt', place.root / 'again')
    ]
    assert all(torch.equal(prompts[0][key], prompts[1][key]) for key in prompts[0] | prompts[1])
    metrics = measure(cfg, place.root / 'again/prompt.safetensors')
    assert f'{metrics["mIoU"]:.2f}' == rows[3][3]

    # The printed line predicts new images.
    line = next(x for x in out.splitlines() if 'tools/predict.py' in x)
    given = shlex.split(line.replace('IMAGE_OR_FOLDER', str(place.root / 'photos')))[2:]
    assert predict.main(given) == 0
    assert len(list((place.out / 'predictions').rglob('labels/**/*.png'))) == 8

    # A second call trains nothing, a further method only that.
    trained = []
    monkeypatch.setattr(module, 'train', lambda cfg, resume: trained.append(cfg.work_dir) or 1 / 0)
    capsys.readouterr()
    assert place.run('--quick', '--short-side', 32) == 0
    again = capsys.readouterr().out
    assert re.sub(r'\d+ s$', '', again.strip()).endswith(
        re.sub(r'\d+ s$', '', out[out.index('On 2 held-out') :].strip())
    )
    assert not trained
    place.run('--methods', 'zero-shot', 'ssprompt', 'semprompt', '--short-side', 32)
    assert trained == [str(place.out / 'semprompt')]


def test_other_settings_or_data_need_force(place, capsys):
    quick = ['--methods', 'zero-shot', '--pictures', 0]
    assert place.run(*quick) == 0
    assert place.run(*quick, '--seed', 1) == 2
    assert 'found seed 0 there and 1 now' in capsys.readouterr().err
    place.save(255 - place.label(3) * 0, 'masks/street_3.png')
    assert place.run(*quick) == 2
    assert 'other images or masks (street_3.png)' in capsys.readouterr().err
    (place.out / 'mine.txt').write_text('kept')
    assert place.run(*quick, '--force') == 0
    assert (place.out / 'mine.txt').read_text() == 'kept'
    assert (np.asarray(Image.open(place.out / 'labels/street_3.png')) == 255).all()


def test_a_stopped_training_goes_on(place, monkeypatch):
    steps = []
    whole = module.train

    def stop(cfg, resume):
        cfg = cfg.copy()
        cfg.train_cfg.max_iters = 2  # as if it was stopped after two of four
        whole(cfg, resume)
        (place.out / 'semprompt/prompt.safetensors').unlink()
        raise KeyboardInterrupt

    arguments = ['--methods', 'semprompt', '--pictures', 0, '--steps', 4, '--parts', '60,0,40']
    monkeypatch.setattr(module, 'train', stop)
    assert place.run(*arguments) == 130
    monkeypatch.setattr(module, 'train', lambda cfg, resume: steps.append(resume) or
                        whole(cfg, resume))  # fmt: skip
    assert place.run(*arguments) == 0
    assert steps == ['auto']
    stopped = PromptFile.load(place.out / 'semprompt/prompt.safetensors').tensors
    shutil.rmtree(place.out)
    assert place.run(*arguments) == 0
    straight = PromptFile.load(place.out / 'semprompt/prompt.safetensors').tensors
    assert all(torch.equal(stopped[key], straight[key]) for key in straight)


def test_shots_are_drawn_from_the_training_part(place):
    arguments = ['--methods', 'semprompt', '--pictures', 0, '--shots', 1, '--seed', 3]
    assert place.run(*arguments) == 0
    few_shot = json.loads((place.out / 'few_shot.json').read_text())
    manifest = json.loads((place.out / 'manifest.json').read_text())
    assert set(few_shot['images']) <= set(manifest['parts']['train'])
    assert min(few_shot['counts'].values()) == 1
    recipe = PromptFile.load(place.out / 'semprompt/prompt.safetensors').recipe
    assert recipe['few_shot']['k'] == 1 and recipe['seed'] == 3


def test_coco_instances_with_a_class_for_the_rest(place, capsys):
    square = [0, 0, 24, 0, 24, 16, 0, 16]
    images = [
        dict(id=i, file_name=f'street_{i}.png', height=SIZE[0], width=SIZE[1]) for i in range(8)
    ]
    content = dict(
        images=images,
        categories=[dict(id=1, name='car'), dict(id=2, name='sky')],
        annotations=[
            dict(image_id=i, category_id=1 + i % 2, segmentation=[square]) for i in range(8)
        ],
    )
    path = place.root / 'instances.json'
    path.write_text(json.dumps(content))
    assert 'no --ignore' in refused(place, capsys, '--coco', path, '--ignore', '0', masks=False)
    assert 'pixels in no instance' in refused(place, capsys, '--coco', path, masks=False)
    arguments = ['--coco', path, '--rest', 'road', '--methods', 'zero-shot', '--pictures', 0]
    assert place.run(*arguments, masks=False) == 0
    label = np.asarray(Image.open(place.out / 'labels/street_1.png'))
    assert (label[:16, :24] == 1).all() and (label == 0).sum() == 32 * 48 - 16 * 24
    content['images'][2]['height'] = 30
    path.write_text(json.dumps(content))
    shutil.rmtree(place.out)
    assert 'image street_2.png: expected 48x32 pixels' in refused(
        place, capsys, '--coco', path, '--rest', 'road', masks=False
    )


def test_coco_panoptic_with_its_pngs(place, capsys):
    annotations = []
    for i in range(7):  # the eighth image is not in the JSON
        label = place.label(i)
        ids = np.where(label == 2, 0, label.astype(int) * 300 + 1)  # cars are void
        rgb = np.stack([ids & 255, ids >> 8, ids * 0], -1).astype(np.uint8)
        place.save(rgb, f'pngs/{i}.png')
        segments = [dict(id=1, category_id=4), dict(id=301, category_id=6)]
        annotations.append(dict(image_id=i, file_name=f'{i}.png', segments_info=segments))
    images = [dict(id=i, file_name=f'street_{i}.png') for i in range(7)]
    categories = [dict(id=4, name='way', isthing=0), dict(id=6, name='air', isthing=0)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (place.root / 'panoptic.json').write_text(json.dumps(content))
    (place.root / 'classes.txt').write_text('4: road\n6: sky\n')
    given = ['--coco', place.root / 'panoptic.json', '--masks', place.root / 'pngs']
    assert 'none for 1: street_7' in refused(place, capsys, *given, masks=False)
    sources = Sources(
        place.root / 'photos', place.root / 'classes.txt', place.root / 'pngs', given[1],
        skip_unlabelled=True,
    )  # fmt: skip
    data = read_data(sources, place.root / 'labels')
    assert data.notes == ['1 images without a mask are left out: street_7']
    for i in range(7):
        label = np.asarray(Image.open(place.root / f'labels/street_{i}.png'))
        assert (label == np.where(place.label(i) == 2, 255, place.label(i))).all()
