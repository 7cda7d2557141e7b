"""tools/pictures.py on finished runs of SPM: the interim maps, stage by stage."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from prompt_files import save_files
from torch.nn import functional as F
from toy import CLASSES, streets_dataset, write_streets
from toy_spm import PLACES, toy_spm, train_a_little

from mmprompt.apis.pictures import interim as module
from mmprompt.apis.pictures.command import main
from mmprompt.apis.pictures.interim import enlarged, mix_colours
from mmprompt.registry import MODELS


def test_colours_are_mixed_by_probability():
    palette = [(255, 0, 0), (0, 0, 255)]
    probs = np.array([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0]]])  # (2, 1, 3)
    assert mix_colours(probs, palette)[0].tolist() == [[255, 0, 0], [128, 0, 128], [0, 0, 255]]


def test_padding_is_cut_off_and_sizes_are_restored():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 6)  # of 30 x 44 pixels, padded to 32 x 48
    found = enlarged(logits, dict(img_shape=(30, 44), pad_shape=(32, 48)), (30, 44))
    whole = F.interpolate(logits, size=(32, 48), mode='bilinear').softmax(1)
    assert torch.equal(found, whole[0, :, :30, :44])
    larger = enlarged(logits, dict(img_shape=(30, 44), pad_shape=(32, 48)), (60, 88))
    assert larger.shape == (3, 60, 88)
    torch.testing.assert_close(larger.sum(0), torch.ones(60, 88))


@pytest.fixture
def run(tmp_path):
    data = streets_dataset(write_streets(tmp_path / 'streets'))
    torch.manual_seed(0)
    model = toy_spm(CLASSES)
    folder = tmp_path / 'prompted'
    folder.mkdir()
    loader = dict(dataset=dict(type='GuardedDataset', dataset=data))
    config = dict(
        default_scope='mmprompt', model=model, train_dataloader=loader, test_dataloader=loader
    )
    Config(config, format_python_code=False).dump(folder / 'config.py')
    # The frozen part is random: saved beside, so that the run finds the same one.
    built = train_a_little(MODELS.build(model))
    weights = folder / 'backbone.pth'
    torch.save(built.backbone.backbone_state_dict(), weights)
    config['model'].backbone.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    Config(config, format_python_code=False).dump(folder / 'config.py')
    save_files(built, folder)
    return folder


def test_one_command_draws_every_stage(run, monkeypatch, capsys):
    drawn = []
    draw = module.draw_scenes
    monkeypatch.setattr(module, 'draw_scenes', lambda s, path: (drawn.extend(s), draw(s, path)))
    assert main([str(run), '--scenes', '2']) == 0
    path = run / 'pictures/interim_prompted.png'
    assert capsys.readouterr().out.split() == [str(path)]
    with Image.open(path) as file:
        assert np.asarray(file.convert('RGB')).std() > 5
    places = [*(f'before {name}' for name in PLACES[:-1]), 'before the head']
    assert len(drawn) == 2
    assert list(drawn[0]) == ['image', 'truth', *places, 'result']
    assert len({column.shape for column in drawn[0].values()}) == 1
    maps = [drawn[0][place] for place in places]
    assert all(not np.array_equal(a, b) for a, b in zip(maps, maps[1:]))
