"""tools/pictures.py on runs as training leaves them."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from prompt_files import write_prompt
from toy import CLASSES, streets_dataset, toy_segmentor, write_streets

from mmprompt.apis.pictures.command import lines_of_table, main, merged_lines, read_counts
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.methods.ssprompt.prompt_sets import class_weights


@pytest.fixture
def runs(toy_prompts, tmp_path):
    """Work directories of two trainings, 4 and 16 images per class."""
    base, prompts = toy_prompts
    inside = streets_dataset(write_streets(tmp_path / 'streets'))
    folders = []
    for shots, miou in ((4, 31.0), (16, 36.5)):
        folder = tmp_path / f'{shots}shot'
        (folder / '20260101/vis_data').mkdir(parents=True)
        few = dict(type='FewShotDataset', dataset=inside, k=shots)
        config = dict(
            default_scope='mmprompt',
            model=toy_segmentor(base),
            train_dataloader=dict(dataset=dict(type='GuardedDataset', dataset=few)),
            test_dataloader=dict(dataset=dict(type='GuardedDataset', dataset=inside)),
        )
        Config(config, format_python_code=False).dump(folder / 'config.py')
        shutil.copy(prompts['streets'], folder / 'prompt.safetensors')
        scalars = f'{json.dumps(dict(loss=1.0))}\n{json.dumps(dict(mIoU=miou, step=9))}\n'
        (folder / '20260101/vis_data/scalars.json').write_text(scalars)
        folders.append(folder)
    return folders


def test_one_command_draws_all_of_it(runs, tmp_path, capsys):
    counts = tmp_path / 'counts.csv'
    counts.write_text('name,count\n' + ''.join(f'{c},{i}\n' for i, c in enumerate(CLASSES)))
    assert main([*map(str, runs), '--counts', str(counts), '--scenes', '2']) == 0
    out = runs[0] / 'pictures'
    expected = {'weights_4shot.png', 'weights_16shot.png', 'weights.csv', 'shots.png', 'scenes.png'}
    assert {p.name for p in out.iterdir()} == expected
    assert set(capsys.readouterr().out.split()) >= {str(out / name) for name in expected}
    for path in out.glob('*.png'):
        with Image.open(path) as file:
            assert np.asarray(file.convert('RGB')).std() > 5, f'{path.name} is empty'
    with open(out / 'weights.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(CLASSES) and rows[1]['count'] == '1'
    prompt = PromptFile.load(runs[0] / 'prompt.safetensors')
    theta = prompt.tensors['semantic_prompt.weight.theta']
    assert [float(row['w']) for row in rows[:19]] == pytest.approx(theta.sigmoid(), abs=1e-6)
    assert all(float(row['w']) + float(row['1-w']) == pytest.approx(1) for row in rows)


def test_weights_are_read_as_they_were_learned():
    def file(tensors, **config):
        recipe = dict(semantic_prompt=dict(type='SemPrompt', **config))
        return PromptFile(tensors, 'SemPrompt', ['a', 'b'], 'base', recipe)

    clamped = file({'semantic_prompt.weight.value': torch.tensor([-0.5, 0.3])}, weight='clamp')
    assert class_weights(clamped).tolist() == pytest.approx([0.0, 0.3])
    assert (
        class_weights(file({'semantic_prompt.offset': torch.zeros(2, 4)}, weight='fixed')) is None
    )


def test_tables_of_results_give_curves(tmp_path, capsys):
    table = tmp_path / 'cells.csv'
    table.write_text(
        'base,data,method,task,shots,seed,recipe,mIoU,PQ\n'
        'nano,fog,zero-shot,semantic,0,0,-,30.0,\n'
        'nano,fog,ssprompt,semantic,4,0,AdamW,33.0,\n'
        'nano,fog,ssprompt,semantic,4,1,AdamW,35.0,\n'
        'nano,fog,ssprompt,semantic,16,0,AdamW,39.0,\n'
    )
    assert lines_of_table(table) == {
        'nano fog semantic mIoU': {
            'zero-shot': {0: [30.0]},
            'ssprompt, AdamW': {4: [33.0, 35.0], 16: [39.0]},
        }
    }
    assert main([str(table), '--out', str(tmp_path / 'out')]) == 0
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['shots.png']
    other = tmp_path / 'other.csv'
    other.write_text(table.read_text().replace('ssprompt', 'coop').replace('zero-shot', 'ssprompt'))
    both = merged_lines([lines_of_table(path) for path in (table, other)])
    (lines,) = both.values()
    assert set(lines) == {'zero-shot', 'ssprompt, AdamW', 'ssprompt', 'coop, AdamW'}
    assert lines['coop, AdamW'] == lines['ssprompt, AdamW'] == {4: [33.0, 35.0], 16: [39.0]}
    table.write_text('method,shots,mIoU\nssprompt,16,39.0\n')
    assert main([str(table)]) == 2
    assert 'found nothing to draw' in capsys.readouterr().err


def test_what_cannot_be_drawn_is_said(runs, toy_prompts, tmp_path, capsys):
    counts = tmp_path / 'counts.json'
    counts.write_text('{"road": 3}')
    write_prompt(toy_prompts[0], tmp_path / 'p.safetensors', ('road', 'sky'), 'SemPrompt')
    (runs[0] / '20260101/vis_data/scalars.json').unlink()
    for arguments, message in (
        ([tmp_path], 'expected the work directory of a finished training'),
        ([tmp_path / 'none.csv'], 'found no such file'),
        ([runs[0], '--counts', counts], "found none for 'sidewalk', 'building'"),
    ):
        assert main([str(a) for a in arguments]) == 2
        assert message in capsys.readouterr().err
    shutil.copy(tmp_path / 'p.safetensors', runs[1] / 'prompt.safetensors')
    assert main([*map(str, runs), '--scenes', '1']) == 2
    assert 'found another classes' in capsys.readouterr().err


def test_counts_are_read_from_json_and_lines(tmp_path):
    path = tmp_path / 'counts.json'
    path.write_text('{"road": 3, "traffic light": 4.5}')
    assert read_counts(path) == {'road': 3.0, 'traffic light': 4.5}
    path = tmp_path / 'counts.csv'
    path.write_text('road,3\n"traffic, light",4\n')
    assert read_counts(path) == {'road': 3.0, 'traffic, light': 4.0}
    for wrong in ('road', 'road,many,x\nsky,no\n'):
        path.write_text(wrong)
        with pytest.raises(UserError, match=r'counts\.csv: expected counts'):
            read_counts(path)
