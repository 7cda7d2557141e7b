"""SAM-CP's own tables: which cells there are, what they change, and what is printed."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

import pytest
from toy import shrink

from mmprompt.apis.cli import OptionsAction, find_config
from mmprompt.apis.csv_rows import write_csv
from mmprompt.apis.reproduce import command as tables
from mmprompt.apis.reproduce import samcp_cells
from mmprompt.apis.reproduce.samcp_cells import (
    COLUMNS,
    METRICS,
    make_cell,
    missing_files,
    read_samcp_rows,
    samcp_cell_of,
    training_config,
)
from mmprompt.apis.reproduce.samcp_cells import samcp_cells as cells_of
from mmprompt.apis.reproduce.samcp_cells import test_config as measuring_config
from mmprompt.apis.reproduce.samcp_paper import SAMCP_FIGURES, samcp_figures
from mmprompt.apis.reproduce.samcp_rows import ALL, COCO128, OPEN, STREETS, STUDIES, VARIANTS
from mmprompt.apis.reproduce.samcp_suites import SAMCP_TABLES
from mmprompt.apis.reproduce.samcp_tables import SAMCPResults, choose_tables, write_samcp_tables

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / 'docs/samcp.md').read_text()
RESULTS = ROOT / 'docs/results.md'
MARK = re.compile(r'<!-- begin table samcp (\d+) ([\w-]+) ([\w-]+)(?: (\d+))? -->')


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(samcp_cells, 'WORK_DIR', tmp_path / 'runs')


def row(name, place=STREETS, seed=0, steps=None, **metrics):
    cell = make_cell(place, name, steps, seed)
    values = {key: str(getattr(cell, key)) for key in samcp_cells.KEYS}
    numbers = {metric: f'{value:.2f}' for metric, value in metrics.items()}
    times = dict(train_seconds='30' if cell.steps else '', seconds='40')
    return values | dict.fromkeys(METRICS, '') | numbers | times


def in_tables(*numbers, place=STREETS):
    chosen = choose_tables(numbers, *place)
    return [(table, p) for table, p in chosen]


def test_what_tables_share_is_one_cell():
    sizes = {n: len(cells_of(in_tables(n), None, [0])) for n in ('2', '3', '4', '5', '12')}
    assert sizes == {'2': 1, '3': 6, '4': 6, '5': 3, '12': 7}
    together = cells_of(in_tables(*sizes), None, [0])
    assert len(together) == 1 + sum(size - 1 for size in sizes.values())
    assert len(cells_of(in_tables(*sizes), None, [0, 1])) == 2 * len(together)
    assert {cell.seed for cell in cells_of(in_tables(*sizes), None, [0, 1])[: len(together)]} == {0}
    # Patches are measured once, whatever the seeds and the steps.
    assert len(cells_of(in_tables('9'), 20, [0, 1, 2])) == 3
    # All kappas are of one training.
    kappas = cells_of([(SAMCP_TABLES[n], OPEN) for n in ('6', '8')], None, [0])
    assert len(kappas) == 6 and len({cell.training for cell in kappas}) == 1


def test_rows_are_the_options_of_the_documentation():
    table = DOCUMENT.split('<!-- begin ablations -->')[1].split('<!-- end')[0]
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    told = {}
    for line in table.splitlines():
        cells = [cell.strip(' `') for cell in line.strip('|').split(' | ')]
        if '=' in cells[-1]:
            words = ['--cfg-options', *shlex.split(cells[-1])]
            told.setdefault(cells[0], []).append(parser.parse_args(words).cfg_options)
    for number, options in told.items():
        rows = [r for r in SAMCP_TABLES[number].places[STREETS] if r != ALL]
        assert [VARIANTS[r].options for r in rows] == options
    assert set(told) == {'3', '4', '5', '12'}


@pytest.mark.parametrize('place', [STREETS, COCO128], ids=lambda place: place[1])
def test_every_cell_of_the_small_studies_has_its_configs(place):
    chosen = [(t, place) for t in SAMCP_TABLES.values() if place in t.places]
    plain = training_config(make_cell(place, ALL))
    for cell in cells_of(chosen, None, [0]):
        assert measuring_config(cell).test_dataloader
        if cell.steps and cell.row not in (ALL, 'other'):
            cfg = training_config(cell)
            assert cfg.model != plain.model or cfg.train_dataloader != plain.train_dataloader


def test_a_cell_of_few_steps_has_the_whole_schedule():
    whole, cfg = (training_config(make_cell(STREETS, ALL, steps)) for steps in (None, 300))
    leaf = find_config(STUDIES[STREETS].leaf)
    assert whole.param_scheduler == leaf.param_scheduler
    assert cfg.train_cfg.max_iters == 300 and 'val_interval' not in cfg.train_cfg
    assert [(s.begin, s.end) for s in cfg.param_scheduler] == [(0, 20), (20, 300)]
    tiny = training_config(make_cell(STREETS, ALL, 1))
    assert all(s.begin < s.end for s in tiny.param_scheduler)
    assert cfg.default_hooks.checkpoint.interval <= 50


def test_other_patches_are_those_of_the_test_alone():
    cell = make_cell(COCO128, 'other', 20)
    store = 'data/patches/coco128_felzenszwalb.db'
    assert measuring_config(cell).test_dataloader.dataset.pipeline[1].store == store
    own = make_cell(COCO128, ALL, 20)
    assert training_config(cell).to_dict() == training_config(own).to_dict()
    assert cell.folder == own.folder


def test_tables_are_made_of_finished_cells(tmp_path, capsys):
    rows = [row(ALL, PQ=30.58, AP_det=10.05, AP=7.91, mIoU=44.25), row('no-mfl', PQ=1, mIoU=2)]
    rows += [row(ALL, seed=1, PQ=32.58), row(ALL, steps=300, PQ=99)]
    write_csv(tmp_path / 'samcp_cells.csv', COLUMNS, rows)
    text = tmp_path / 'results.md'
    steps = make_cell(STREETS, ALL).steps
    mark = f'table samcp 3 nano streets {steps}'
    text.write_text(f'<!-- begin {mark} -->\n<!-- end {mark} -->')
    command = ['samcp', '3', '--out', str(tmp_path), '--limit', '0']
    assert tables.main([*command, '--into', str(text)]) == 0
    shown = capsys.readouterr().out
    title = f'**Table 3, losses and costs**, base `nano` on `streets`, {steps} steps, one seed.'
    assert title in shown
    assert '| everything | 30.6 | 10.1 | 7.9 | 44.2 | *47.0* | *45.8* | *41.4* | *54.2* |' in shown
    first = '| without mask focal loss and cost | 1.0 | - | - | 2.0 | *0.0* | *3.5* |'
    assert first in shown and shown.strip() in text.read_text()
    assert tables.main([*command, '--seeds', '0', '1']) == 0
    shown = capsys.readouterr().out
    assert '| everything | 31.6 ± 1.4 | 10.1 (1 of 2 seeds) |' in shown
    assert tables.main([*command, '--steps', '300']) == 0
    assert '| everything | 99.0 | - | - | - |' in capsys.readouterr().out


def test_times_and_methods_of_others_stand_in_the_table(tmp_path, capsys):
    heads = ('config', 'label', 'generator', 'patches (s)', 'the rest (s)', 'total (s)', 'further')
    lines = (
        ('samcp_nano_streets', 'felzenszwalb', 'felzenszwalb', '0.5', '0.25', '0.75', 'x'),
        ('samcp_nano_streets', 'felzenszwalb-smooth', 'felzenszwalb', '0.4', '0.2', '0.6', 'x'),
    )
    write_csv(tmp_path / 'samcp_split.csv', heads, [dict(zip(heads, line)) for line in lines])
    assert tables.main(['samcp', '11', '13', '--out', str(tmp_path), '--limit', '0']) == 0
    shown = capsys.readouterr().out
    assert '| everything | 0.50 | 0.25 | 0.75 | - | - | - | *3.41* | *0.21* | *3.62* |' in shown
    smooth = '| tested on patches of Felzenszwalb on smoothed images | 0.40 | 0.20 | 0.60 | - |'
    assert smooth in shown
    assert '| FC-CLIP |  |  |  |  |  |  | *0.00* | *0.24* |' in shown
    assert '| OVSAM, Swin-B |  |  | *36.7* | *57.2* |' in shown


def test_dry_run_lists_what_is_missing_and_what_it_needs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no data are
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    write_csv(tmp_path / 'samcp_cells.csv', COLUMNS, [row('no-pe'), row('best', PQ=1)])
    command = ['samcp', '5', '7', '9', '--out', str(tmp_path), '--dry-run']
    assert tables.main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r'done +nano on streets: no-pe', shown)
    assert re.search(r'needs +nano on streets: image .*: data/streets/clear, data/patches', shown)
    assert re.search(r'done +nano on streets: best\n', shown)
    assert 'tools/train.py configs/samcp/samcp_r50_coco-panoptic_36e_mask-dino.py' in shown
    assert '--dedupe 0.9 --out data/patches/samcp_streets_train_felzenszwalb+smooth.db' in shown
    assert '0 cells to run' in shown
    assert tables.main(['samcp', '5', '--out', str(tmp_path), '--limit', '1']) == 0
    assert 'left out, needs data/streets/clear' in capsys.readouterr().out


def test_stores_are_looked_for_by_pattern(tmp_path, monkeypatch):
    cell = make_cell(STREETS, 'best')
    cfg = measuring_config(cell)
    monkeypatch.setattr(samcp_cells, 'test_config', lambda cell: cfg)
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    cfg.test_dataloader.dataset.pipeline[1].store = str(tmp_path / 'x.*-of-2.db')
    assert missing_files(cell) == [str(tmp_path / 'x.*-of-2.db')]
    (tmp_path / 'x.1-of-2.db').touch()
    assert missing_files(cell) == []


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['16'], 'expected tables of the paper'),
        (['3', '--base', 'focal-t'], '--base nano --data streets'),
        (['6', '--base', 'nano'], '--base clip-convnext-l --data coco-to-ade20k'),
    ],
)
def test_what_is_unknown_is_refused(words, said, capsys):
    assert tables.main(['samcp', *words, '--dry-run']) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('words', [['5', '3'], ['5', '--steps', '3'], ['samcp', '--steps', '-1']])
def test_arguments_that_make_no_sense_are_refused(words):
    with pytest.raises(SystemExit):
        tables.main([*words, '--dry-run'])


def test_cells_are_trained_measured_and_kept(tmp_path, monkeypatch, capsys):
    """At toy size, from the command to the rows, and not a second time."""

    def toy(make):
        def config(cell):
            cfg = make(cell)
            steps, folder = (cfg.get('train_cfg') or {}).get('max_iters'), cfg.work_dir
            cfg = shrink(cfg, tmp_path / 'toy')
            cfg.work_dir = folder
            cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps or 1)
            for step in cfg.test_dataloader.dataset.pipeline:
                if step.type == 'LoadPatches':  # of rows with others
                    step.store = str(next((tmp_path / 'toy').rglob('leftImg8bit_test_/toy.db')))
            return cfg

        return config

    trained = []
    original = samcp_cells.train
    monkeypatch.setattr(samcp_cells, 'training_config', toy(training_config))
    monkeypatch.setattr(samcp_cells, 'test_config', toy(measuring_config))
    monkeypatch.setattr(
        samcp_cells, 'train', lambda cfg, **more: trained.append(cfg) or original(cfg, **more)
    )
    command = ['samcp', '9', '11', '--steps', '2', '--out', str(tmp_path)]
    assert tables.main([*command, '--limit', '2']) == 0
    kept = {r['row']: r for r in read_samcp_rows(tmp_path / 'samcp_cells.csv')}
    assert list(kept) == ['best', 'parts', 'greedy', ALL]
    assert float(kept['greedy']['object_IoU']) >= float(kept['best']['object_IoU']) > 0
    assert 0 <= float(kept[ALL]['PQ']) <= 100 and kept[ALL]['train_seconds']
    assert tables.main(command) == 0  # the same weights, on other patches
    kept = {r['row']: r for r in read_samcp_rows(tmp_path / 'samcp_cells.csv')}
    assert kept['other']['train_seconds'] == '' and kept['other']['steps'] == '2'
    assert len(trained) == 1 and trained[0].train_cfg.max_iters == 2
    folder = make_cell(STREETS, ALL, 2).folder
    assert [path.name for path in folder.iterdir()] == ['head.safetensors']
    assert tables.main([*command, '--dry-run']) == 0
    assert '0 cells to run' in capsys.readouterr().out


def test_recorded_cells_and_their_tables_are_those_of_the_documentation(tmp_path):
    folder = RESULTS.parent / 'results'
    rows = read_samcp_rows(folder / 'samcp_cells.csv')
    assert all(samcp_cell_of(r).place in STUDIES for r in rows)
    copy = Path(shutil.copy(RESULTS, tmp_path))
    for number, base, data, steps in MARK.findall(RESULTS.read_text()):
        place = (base, data)
        seeds = sorted({int(r['seed']) for r in rows if (r['base'], r['data']) == place}) or [0]
        results = SAMCPResults(folder, int(steps) if steps else None, seeds)
        write_samcp_tables([(SAMCP_TABLES[number], place)], results, copy)
    assert copy.read_text() == RESULTS.read_text()


def test_the_papers_figures_stand_in_our_documentation():
    table = DOCUMENT.split('<!-- begin ablations -->')[1].split('<!-- end')[0]
    for number in ('3', '4', '5', '12'):
        lines = [
            line.split(' | ') for line in table.splitlines() if line.startswith(f'| {number} ')
        ]
        rows = [r for r in SAMCP_TABLES[number].places[STREETS] if r != ALL]
        figures = samcp_figures(number, 'COCO')
        for name, line in zip(rows, lines, strict=True):
            shown = [float(value) for value in line[2:6]]
            assert shown == [figures[name, m] for m in ('PQ', 'AP_det', 'AP', 'mIoU')]
    assert len(SAMCP_FIGURES) == len({f[:4] for f in SAMCP_FIGURES})
    assert {f.table for f in SAMCP_FIGURES} == set(SAMCP_TABLES)
