"""SPM learned from a folder of images and masks in one command."""

import json
import shlex

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from toy import CLASSES
from toy_spm import toy_spm
from workplace import refused

from mmprompt.apis.cli import find_config
from mmprompt.apis.predict import command as predict
from mmprompt.apis.test import test as measure
from mmprompt.common.prompt_file import PromptFile
from mmprompt.registry import MODELS


@pytest.fixture
def prompted(place):
    """A config of SPM as the base: toy size, the frozen weights in a file."""
    model = toy_spm(CLASSES)
    weights = place.root / 'backbone.pth'
    torch.save(MODELS.build(model).backbone.backbone_state_dict(), weights)
    model.backbone.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    place.base = place.root / 'toy_spm.py'
    Config(dict(default_scope='mmprompt', model=model), format_python_code=False).dump(place.base)
    return place


def test_spm_from_a_folder(prompted, capsys):
    """Classes that no text encoder knows, masks that leave something out."""
    place = prompted
    (place.root / 'classes.txt').write_text('walrus\nzebra\nquokka\n')
    label = place.label(0).copy()
    label[:8] = 255
    place.save(label, 'masks/street_0.png')
    assert place.run('--short-side', 32, '--pictures', 2) == 0
    out = capsys.readouterr().out
    files = ['head/head.safetensors', 'spm/head.safetensors', 'spm/prompt.safetensors']
    pictures = [f'pictures/{name}.png' for name in ('scenes_1', 'legend', 'interim_spm')]
    assert all((place.out / name).is_file() for name in [*files, *pictures, 'class_prior.json'])
    table = (place.out / 'table.csv').read_text().splitlines()
    assert table[0] == 'class,test images,head tuning,SPM'
    assert [line.split(',')[0] for line in table[1:5]] == ['walrus', 'zebra', 'quokka', 'mIoU']

    # M_0 is counted on the training images alone, without what is left out.
    manifest = json.loads((place.out / 'manifest.json').read_text())
    names = manifest['parts']['train']
    labels = [np.asarray(Image.open(place.root / 'masks' / name)) for name in names]
    pixels = [sum(int((array == i).sum()) for array in labels) for i in range(3)]
    prior = PromptFile.load(place.out / 'spm/prompt.safetensors').tensors['class_prior']
    assert prior.tolist() == pytest.approx([n / sum(pixels) for n in pixels])

    # The written configs are the run, and the printed line names them.
    cfg = find_config(place.out / 'configs/spm.py')
    cfg.work_dir = str(place.root / 'again')
    metrics = measure(cfg, place.out / 'spm/prompt.safetensors')
    assert f'{metrics["mIoU"]:.2f}' == table[4].split(',')[3]
    line = next(x for x in out.splitlines() if 'tools/predict.py' in x)
    given = shlex.split(line.replace('IMAGE_OR_FOLDER', str(place.root / 'photos')))[2:]
    assert predict.main(given) == 0
    assert len(list((place.out / 'predictions').rglob('labels/**/*.png'))) == 8
    capsys.readouterr()
    assert place.run('--short-side', 32, '--pictures', 2, '--lr', 0.002) == 2
    assert 'lr 0.001 there and 0.002 now' in capsys.readouterr().err


def test_what_spm_cannot_be_given(prompted, capsys):
    place = prompted
    assert 'head, spm for --base' in refused(place, capsys, '--methods', 'spm', 'ssprompt')
    (place.root / 'backbone.pth').unlink()
    assert 'the frozen weights that' in refused(place, capsys)
    place.base.write_text('model = dict(type="mmseg.EncoderDecoder")\n')
    assert 'a config whose model is an SPMSegmentor' in refused(place, capsys)
    place.base = place.root / 'nowhere.py'
    assert 'expected a config file' in refused(place, capsys)
