"""SPM's own tables: which cells there are, how a rate is chosen, and what is printed."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from toy import shrink

from mmprompt.apis.reproduce import command as tables
from mmprompt.apis.reproduce import spm_cells
from mmprompt.apis.reproduce.spm_cells import (
    COUNTS,
    KEYS,
    best_rate,
    find_study,
    read_spm_rows,
    spm_config,
)
from mmprompt.apis.reproduce.spm_cells import spm_cells as known_cells
from mmprompt.apis.reproduce.spm_paper import SPM_FIGURES
from mmprompt.apis.reproduce.spm_tables import write_spm_tables
from mmprompt.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[3]
CHASE = ('r50', 'chase-db1')
ARMS = ('head', 'spm', 'full', 'scratch')


def row(arm, rate, dice, part='held-out', seed=0, places='1-5', optimizer='AdamW', steps=None):
    steps = steps or (200 if part == 'held-out' else 300)
    values = (*CHASE, arm, places if arm == 'spm' else '-', optimizer, rate, seed, steps, part)
    counts = (0, 5_155_146 if arm == 'spm' else 0, 5_904_386, 90, 120)
    names = (*KEYS, 'Dice', 'Dice_mean_of_images', *COUNTS)
    return dict(zip(names, map(str, (*values, dice, dice, *counts))))


def choosing(arms=ARMS, scores=((0.001, 50), (0.0003, 40), (0.003, 30))):
    return [row(arm, rate, dice) for arm in arms for rate, dice in scores]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_rates_are_chosen_before_any_test_image_is_seen():
    cells = known_cells(*CHASE, [])
    assert [(c.arm, c.rate) for c in cells[:5]] == [(a, '0.001') for a in ARMS] + [
        ('head', '0.0003')
    ]
    assert len(cells) == 12 and {c.part for c in cells} == {'held-out'}
    done = choosing(['head'])
    later = [c for c in known_cells(*CHASE, done) if c.part == 'test']
    assert [(c.arm, c.rate, c.seed, c.steps) for c in later] == [
        ('head', '0.001', seed, 300) for seed in range(3)
    ]


def test_the_whole_protocol():
    tests = [c for c in known_cells(*CHASE, choosing()) if c.part == 'test']
    assert [(c.arm, c.places, c.seed) for c in tests] == [
        ('head', '-', 0),
        ('spm', '1-5', 0),
        ('full', '-', 0),
        ('scratch', '-', 0),
        *(
            (arm, places, seed)
            for seed in (1, 2)
            for arm, places in (('head', '-'), ('spm', '1-5'))
        ),
        ('spm', '1', 0),
        ('spm', '1-3', 0),
    ]


def test_a_smaller_rate_is_tried_where_the_smallest_is_best_and_the_backbone_trained():
    rising = ((0.001, 30), (0.0003, 40), (0.003, 20))
    rows = choosing(['head', 'full'], rising)
    assert best_rate(*CHASE, 'head', rows) == '0.0003'
    assert best_rate(*CHASE, 'full', rows) is None
    assert [c.arm for c in known_cells(*CHASE, rows) if c.rate == '0.0001'] == ['full']
    assert best_rate(*CHASE, 'full', [*rows, row('full', 0.0001, 45)]) == '0.0001'
    worse = [*rows, row('full', 0.0001, 35)]
    assert best_rate(*CHASE, 'full', worse) == '0.0003'
    assert [c.arm for c in known_cells(*CHASE, worse) if c.rate == '0.0001'] == ['full']


def test_rows_of_another_optimiser_choose_nothing():
    rows = choosing(['spm']) + [row('spm', 0.01, 99, optimizer='SGD, any crop')]
    assert best_rate(*CHASE, 'spm', rows) == '0.001'
    assert best_rate(*CHASE, 'spm', rows[1:]) is None


def test_configs_of_cells():
    first, *_ = known_cells(*CHASE, [])
    cfg = spm_config(first, Path('work'))
    assert cfg.model.backbone.tuning == 'head' and cfg.optim_wrapper.optimizer.lr == 0.001
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == 200
    assert cfg.train_dataloader.dataset.part == 'fit'
    assert cfg.test_dataloader.dataset.part == 'held-out'
    tests = [c for c in known_cells(*CHASE, choosing()) if c.part == 'test']
    cfg = spm_config(tests[-1], Path('work'))
    assert list(cfg.model.backbone.prompt_at) == ['layer1', 'layer2', 'layer3']
    assert cfg.train_dataloader.dataset.part == 'train'
    assert cfg.test_dataloader.dataset.part == 'test' and cfg.train_cfg.max_iters == 300


def test_held_out_frames_of_camvid_are_not_trained_on(tmp_path):
    first, *_ = known_cells('r50', 'camvid', [])
    cfg = shrink(spm_config(first, tmp_path), tmp_path)
    parts = []
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline = []
        data = DATASETS.build(loader.dataset)
        parts.append({data.get_data_info(i)['img_path'] for i in range(len(data))})
    fit, held_out = parts
    # Clips of 33, 3 and 3 frames: all but the last 20 of each, and these.
    assert len(fit) == 13 and len(held_out) == 20 + 3 + 3 and not fit & held_out


def test_tables_are_made_of_finished_cells(tmp_path, capsys):
    rows = choosing()
    rows += [row('head', 0.001, d, 'test', s) for s, d in enumerate((40, 41, 42))]
    rows += [row('spm', 0.001, d, 'test', s) for s, d in enumerate((60, 63))]
    rows += [row('spm', 0.001, 55, 'test', 0, '1'), row('full', 0.003, 99, 'test')]
    write(tmp_path / 'cells.csv', rows)
    text = tmp_path / 'results.md'
    text.write_text(
        '<!-- begin table spm ways r50 chase-db1 -->\n<!-- end table spm ways r50 chase-db1 -->'
    )
    command = ['spm', '--out', str(tmp_path), '--into', str(text), '--limit', '0']
    assert tables.main(command) == 0
    shown = capsys.readouterr().out
    assert (
        '| head tuning | 0.001 | 0.00 | 0.00 | 5.90 | 41.0 ± 1.0 | 41.0 ± 1.0 | 1.5 | *68.24* |'
        in shown
    )
    assert '| SPM | 0.001 | 0.00 | 5.16 | 5.90 | 61.5 ± 2.1 (2 of 3 seeds) |' in shown
    assert (
        '| full tuning | 0.001 | - | - | - | - | - | - | *79.94* |' in shown
    )  # 0.003 was not chosen
    assert '| 1 | 5.16 | 55.0 | *34.43* |' in shown
    assert '| SPM | 40.0 | 50.0 | 30.0 |' in shown
    assert text.read_text().count('| SPM |') == 1
    assert (tmp_path / 'ways.md').read_text() in shown


def test_dry_run_lists_what_is_missing(tmp_path, capsys):
    write(tmp_path / 'cells.csv', choosing(['head']))
    assert tables.main(['spm', '--out', str(tmp_path), '--dry-run']) == 0
    shown = capsys.readouterr().out
    assert shown.count('done') == 3 and '15 cells, 12 to run' in shown
    assert 'rates are chosen of: spm, full, scratch' in shown


def test_unknown_data_and_foreign_files_are_refused(tmp_path, capsys):
    assert tables.main(['spm', '--data', 'streets', '--dry-run']) != 0
    assert '--base r50 --data camvid' in capsys.readouterr().err
    (tmp_path / 'cells.csv').write_text('base,data\n')
    assert tables.main(['spm', '--out', str(tmp_path), '--dry-run']) != 0
    assert 'expected the columns base,data,arm' in capsys.readouterr().err


def test_a_cell_is_trained_measured_and_kept(tmp_path, monkeypatch):
    """At toy size, from the command to the row, and not a second time."""

    weights = tmp_path / 'backbone.pth'

    def toy_config(cell, work_dir):
        cfg = shrink(spm_config(cell, work_dir), tmp_path / 'toy')
        cfg.work_dir = str(work_dir)
        wrapped = cfg.model.backbone.backbone
        if not weights.exists():
            torch.save(MODELS.build(wrapped).state_dict(), weights)
        wrapped.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
        return cfg

    monkeypatch.setattr(spm_cells, 'spm_config', toy_config)
    monkeypatch.setattr(spm_cells, 'WORK_DIR', tmp_path / 'runs')
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    command = ['spm', '--data', 'camvid', '--out', str(tmp_path), '--limit', '1']
    assert tables.main(command) == 0
    study = find_study('r50', 'camvid')
    (kept,) = read_spm_rows(tmp_path / 'cells.csv', study)
    assert kept['arm'] == 'head' and kept['prompt'] == kept['backbone'] == '0'
    assert int(kept['head']) > 0 and 0 <= float(kept['mIoU']) <= 100
    assert tables.main(command) == 0
    assert [r['arm'] for r in read_spm_rows(tmp_path / 'cells.csv', study)] == ['head', 'spm']
    assert not list((tmp_path / 'runs').iterdir())


@pytest.mark.parametrize('data', ['chase-db1', 'camvid'])
def test_recorded_cells_can_be_read(data):
    folder = ROOT / 'docs' / 'results' / f'spm_{data}'
    rows = read_spm_rows(folder / 'cells.csv', find_study('r50', data))
    assert all(0 <= float(r[find_study('r50', data).metrics[0]]) <= 100 for r in rows)


@pytest.mark.parametrize('data', ['chase-db1', 'camvid'])
def test_the_tables_of_the_documentation_are_those_of_the_cells(data, tmp_path):
    folder, shown = ROOT / 'docs' / 'results' / f'spm_{data}', ROOT / 'docs' / 'results.md'
    if (folder / 'cells.csv').is_file():
        shutil.copy(folder / 'cells.csv', tmp_path)
    copy = Path(shutil.copy(shown, tmp_path))
    write_spm_tables('r50', data, tmp_path, copy)
    assert copy.read_text() == shown.read_text()
    for made in tmp_path.glob('*.md'):
        assert made == copy or (folder / made.name).read_text() == made.read_text()


def test_the_papers_figures_stand_in_its_text_and_in_ours():
    shown = (ROOT / 'docs' / 'spm.md').read_text().split('## Figures of the paper')[1]
    numbers = set(re.findall(r'\d+\.\d+', shown))
    compared = [f for f in SPM_FIGURES if f.table not in ('6', '7')]
    assert {f'{f.value:.2f}' for f in compared} == numbers
    assert len(SPM_FIGURES) == len(set(SPM_FIGURES)) == 4 * 7 + 7 + 5 + 6 + 5
