"""Grids of cells: what runs, what is kept, how a stopped table continues."""

import itertools
import multiprocessing
import threading
import time

import pytest
import torch
from toy import shrink, write_streets

from mmprompt.apis.reproduce import command as tables
from mmprompt.apis.reproduce import ssprompt_cells as cells
from mmprompt.apis.reproduce import ssprompt_suites as suites
from mmprompt.apis.reproduce.ssprompt_cells import VARIANTS, Cell, cell_config, cells_of
from mmprompt.apis.reproduce.ssprompt_rows import COLUMNS, append_row, cell_of, make_row, read_rows
from mmprompt.apis.reproduce.ssprompt_suites import SUITES, TABLES, Column, Table
from mmprompt.common.audit import trained_parameters
from mmprompt.common.errors import UserError
from mmprompt.common.few_shot import Manifest
from mmprompt.registry import MODELS

RECIPE = 'AdamW 0.01, 200 steps of 4'
SMALL = Table('small', 'two cells', ('zero-shot', 'ssprompt'))
FOG = ['--data', 'streets-fog']


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setitem(TABLES, 'small', SMALL)


def fog(method, seed=0, shots=16, recipe=RECIPE):
    return Cell('nano', 'streets-fog', method, 'semantic', shots, seed, recipe)


FROZEN = fog('zero-shot', shots=0, recipe='-')


def fake_row(cell):
    return make_row(cell, dict(mIoU=10.0 + cell.shots + cell.seed, aAcc=99.0), 5, 1.0, 2.0)


def distinct(names, base='nano', data='streets'):
    suite = SUITES[base, data]
    return dict.fromkeys(c for name in names for c in cells_of(TABLES[name], base, suite))


def test_a_cell_of_several_tables_is_one_cell():
    separate = [len(distinct([name])) for name in ('2', '3', '5')]
    # Methods x data sets x seeds; the frozen model has one cell for each data set.
    assert separate == [1 + 3 * 3, 4 * (1 + 3 * 3), 1 + 5 * 3]
    # In Table 5 and 3 SSPrompt and the frozen model in fog are the same four cells.
    assert len(distinct(['2', '3', '5'])) == sum(separate) - 4
    # The instance and panoptic numbers of the frozen model come from one run.
    assert len(distinct(['4'])) == 2 + 3
    assert len(distinct(['10'])) == 5 and len(distinct(['10', '8', '6'])) == 5 + 3 + 3


def test_a_table_goes_seed_by_seed():
    seeds = [cell.seed for cell in distinct(['3'])]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2}


@pytest.mark.parametrize(('base', 'data'), SUITES)
def test_every_cell_has_its_config(base, data):
    for cell in distinct(SUITES[base, data].tables, base, data):
        cfg = cell_config(cell, 'nowhere')
        method = VARIANTS[cell.method].method if cell.method in VARIANTS else cell.method
        assert cfg.model.get('method') == method and cfg.work_dir == 'nowhere'
        assert cfg.val_cfg is None and cfg.randomness.seed == cell.seed
        few_shot = cfg.train_dataloader.dataset
        if cell.shots and few_shot.get('manifest'):
            assert few_shot.manifest.endswith(f'{cell.shots}shot_seed{cell.seed}.json')
        elif cell.shots:
            assert (few_shot.k, few_shot.seed) == (cell.shots, cell.seed)


@pytest.mark.parametrize(
    ('method', 'parameters'),
    [('zero-shot', 0), ('coop', 16 * 64), ('spaprompt', 100 * 81), ('ssprompt', 119 * 81)],
)
def test_a_cell_trains_what_its_method_says(method, parameters):
    cfg = cell_config(fog(method), 'nowhere')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(trained_parameters(model).values()) == parameters


def test_the_recipe_is_part_of_a_cell():
    column = Column('fog', 'streets-fog')
    assert cells.make_cell('nano', column, 'ssprompt', 0) == fog('ssprompt')
    head = cells.make_cell('nano', column, 'head', 0)
    assert head.recipe == 'AdamW 0.001, 200 steps of 4'
    assert cell_config(head, 'nowhere').optim_wrapper.optimizer.lr == 1e-3
    public = cells.make_cell('focal-t', Column('ADE20K', 'ade20k'), 'head', 0)
    assert public.recipe == 'SGD 0.001, 10000 steps of 8'


@pytest.mark.parametrize(
    ('source', 'tokens', 'copies'), [('query-pos', False, 1), ('both', False, 2), ('grid', True, 1)]
)
def test_a_reading_of_the_spatial_prompt_is_a_method_of_its_own(source, tokens, copies):
    cfg = cell_config(fog(f'ssprompt-{source}'), 'nowhere')
    head = cfg.model.decode_head
    assert head.spatial_prompt.source == source.replace('-', '_')
    assert head.decoder.get('object_tokens', False) == tokens
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(trained_parameters(model).values()) == (100 * copies + 19) * 81


def test_published_recipes_come_from_their_own_configs():
    column = Column('fog', 'streets-fog')
    published = cells.make_cell('nano', column, 'ssprompt-published', 0)
    native = cells.make_cell('nano', column, 'coop-native', 0)
    assert published.recipe == 'SGD 0.001, 10000 steps of 2'
    assert native.recipe == 'SGD 0.002, 256 steps of 32'
    for cell, steps in ((published, 10_000), (native, 256)):
        cfg = cell_config(cell, 'nowhere')
        assert cfg.train_cfg.max_iters == steps == cfg.param_scheduler[-1].end


def test_a_rate_of_a_column_replaces_that_of_the_method():
    column = Column('fog', 'streets-fog-val', rate=3e-2)
    cell = cells.make_cell('nano', column, 'coop', 0)
    assert cell.recipe == 'AdamW 0.03, 200 steps of 4'
    assert cell_config(cell, 'nowhere').optim_wrapper.optimizer.lr == 3e-2
    assert cells.make_cell('nano', column, 'zero-shot', 0).recipe == '-'


def test_rates_that_were_chosen_on_other_bases_are_not_taken():
    cell = cells.make_cell('mobile-sam', Column('dusk', 'camvid-dusk'), 'coop', 0)
    assert cell.recipe == 'AdamW 0.01, 60 steps of 2'
    assert cells.make_cell('r50', Column('dusk', 'camvid-dusk'), 'coop', 0).recipe.startswith(
        'AdamW 0.003'
    )


def test_validation_data_are_the_split_for_choosing():
    here = cell_config(fog('ssprompt'), 'nowhere').test_dataloader.dataset
    there = cell_config(
        Cell('nano', 'streets-fog-val', 'ssprompt', 'semantic', 16, 0, RECIPE), 'nowhere'
    ).test_dataloader.dataset
    assert here.data_prefix.img_path == 'leftImg8bit/test'
    assert there.data_prefix.img_path == 'leftImg8bit/val' and there.data_root == here.data_root
    snow = Cell('nano', 'streets-snow-val', 'seem', 'panoptic', 0, 0, '-')
    frozen = cell_config(snow, 'nowhere')
    assert frozen.test_dataloader.dataset.data_root == 'data/streets/snow'
    assert frozen.test_dataloader.dataset.data_prefix.img_path == 'leftImg8bit/val'


def test_one_data_set_of_a_suite():
    rain = suites.find_suite('nano', 'streets-rain')
    assert (rain.common, rain.adverse, rain.main) == ((), ('streets-rain',), 'streets-rain')
    assert rain.tasks == ('semantic',)
    assert suites.suite_name('nano', 'streets-rain') == 'streets'
    with pytest.raises(UserError, match='streets-rain.*found none of that name'):
        suites.find_suite('nano', 'streets-hail')
    with pytest.raises(UserError, match='public, cityscapes'):
        suites.suite_name('focal-t', 'camvid')


def test_a_table_has_a_base_and_data_of_its_own(capsys):
    for name, (base, data) in (('sam', ('mobile-sam', 'camvid')), ('shots', ('r50', 'camvid'))):
        assert TABLES[name].home == (base, data)
        assert tables.main([name, '--dry-run']) == 0
        shown = capsys.readouterr().out.splitlines()
        assert all(f'{base} on camvid-dusk' in line for line in shown[:-1])
    assert tables.main(['shots', '--base', 'nano', '--dry-run']) == 0
    assert 'nano on streets-fog: ssprompt, 8-shot' in capsys.readouterr().out


@pytest.mark.parametrize(('base', 'data'), SUITES)
def test_all_tables_of_a_suite_exist_and_have_columns(base, data):
    suite = SUITES[base, data]
    assert set(suite.tables) <= set(TABLES)
    for name in suite.tables:
        assert TABLES[name].columns(suite), name


@pytest.fixture
def toy_configs(tmp_path, monkeypatch):
    write_streets(tmp_path / 'write_streets', train=16)
    monkeypatch.setattr(cells, '_read', lambda leaf: shrink(cells.find_config(leaf), tmp_path))
    cells.recipe_of.cache_clear()
    yield
    cells.recipe_of.cache_clear()


@pytest.mark.usefixtures('toy_configs')
def test_two_toy_cells_run_to_the_end(tmp_path, capsys):
    out = tmp_path / 'results'
    text = tmp_path / 'results.md'
    text.write_text(
        '<!-- begin table small nano streets-fog -->\n<!-- end table small nano streets-fog -->'
    )
    assert tables.main(['small', *FOG, '--out', str(out), '--into', str(text)]) == 0
    frozen, learned = read_rows(out / 'cells.csv')
    assert (frozen['parameters'], learned['parameters']) == ('0', str((9 + 19) * 17))
    assert 0 <= float(learned['mIoU']) <= 100 and float(learned['train_seconds']) > 0
    assert cell_of(learned).recipe == 'AdamW 0.01, 1 steps of 4'
    shown = f'| SSPrompt | {float(learned["mIoU"]):.1f} |'
    for where in (capsys.readouterr().out, text.read_text(), (out / 'small.md').read_text()):
        assert shown in where
    assert (out / 'small.csv').read_text().count('measured') == 2


def _first_then_wait(out, reached):
    def run(cell):
        if cell.shots:
            reached.set()
            time.sleep(60)
        return fake_row(cell)

    tables.run_cell = run
    tables.main(['small', *FOG, '--out', out])


def test_a_killed_table_continues_with_the_missing_cell(tmp_path, monkeypatch, capsys):
    context = multiprocessing.get_context('fork')
    reached = context.Event()
    child = context.Process(target=_first_then_wait, args=(str(tmp_path), reached), daemon=True)
    child.start()
    assert reached.wait(60)
    tables.main(['small', *FOG, '--out', str(tmp_path), '--dry-run'])
    states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert states == ['done', 'running', '2']
    child.kill()
    child.join()
    ran = []
    monkeypatch.setattr(tables, 'run_cell', lambda cell: ran.append(cell) or fake_row(cell))
    assert tables.main(['small', *FOG, '--out', str(tmp_path)]) == 0
    assert ran == [fog('ssprompt')]
    assert '| SSPrompt | 26.0 |' in capsys.readouterr().out
    assert [cell_of(row) for row in read_rows(tmp_path / 'cells.csv')] == [FROZEN, *ran]


def test_a_cell_that_another_process_runs_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'run_cell', fake_row)
    path = tmp_path / 'cells.csv'
    with tables.process_lock(tables._claim(path, FROZEN)):
        assert tables.run_missing([FROZEN, fog('ssprompt')], path) == 1
    assert [cell_of(row) for row in read_rows(path)] == [fog('ssprompt')]


def test_a_limit_stops_early(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'run_cell', fake_row)
    path = tmp_path / 'cells.csv'
    grid = [fog('ssprompt', seed) for seed in range(3)]
    assert tables.run_missing(grid, path, limit=2) == 2
    assert tables.run_missing(grid, path, limit=2) == 1


def test_two_writers_lose_no_row(tmp_path):
    path = tmp_path / 'cells.csv'

    def write(method):
        for seed in range(10):
            append_row(path, fake_row(fog(method, seed)))

    writers = [threading.Thread(target=write, args=(m,)) for m in ('coop', 'locn')]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    expected = {fog(m, s) for m, s in itertools.product(('coop', 'locn'), range(10))}
    assert {cell_of(row) for row in read_rows(path)} == expected
    append_row(path, fake_row(fog('coop')))  # measured again: replaced
    assert len(read_rows(path)) == 20


def test_a_row_keeps_the_known_metrics():
    row = make_row(fog('coop'), dict(mIoU=1 / 3, PQ=float('nan'), SQ_th=5.0), 8, 1.0, 2.0)
    assert (row['mIoU'], row['PQ'], row['AP50'], row['shots']) == ('0.33', 'nan', '', '16')
    assert 'SQ_th' not in row and cell_of(row) == fog('coop')


def test_a_file_from_before_a_metric_was_kept_is_read_on(tmp_path):
    path = tmp_path / 'cells.csv'
    append_row(path, fake_row(fog('coop')))
    kept = [name for name in COLUMNS if name != 'aAcc']
    row = read_rows(path)[0]
    path.write_text(f'{",".join(kept)}\n' + ','.join(f'"{row[name]}"' for name in kept) + '\n')
    append_row(path, fake_row(fog('locn')))
    old, new = read_rows(path)
    assert old == row | dict(aAcc='') and new['aAcc'] == '99.00'
    path.write_text(path.read_text().replace('recipe', 'receipt'))
    with pytest.raises(UserError, match='receipt'):
        read_rows(path)


def test_a_missing_list_of_images_is_drawn_and_kept(tmp_path):
    cfg = cell_config(fog('ssprompt', seed=3, shots=1), str(tmp_path))
    kept = cfg.train_dataloader.dataset.manifest
    assert kept == 'data/streets/fog/1shot_seed3.json'
    cfg = shrink(cfg, tmp_path)
    few_shot = cfg.train_dataloader.dataset
    few_shot.manifest = str(tmp_path / '1shot_seed3.json')
    tables._make_manifest(cfg, fog('ssprompt', seed=3, shots=1))
    made = Manifest.load(few_shot.manifest)
    assert (made.k, made.seed) == (1, 3)
    few_shot.manifest = None
    tables._make_manifest(cfg, fog('ssprompt', seed=3, shots=1))
    assert [p.name for p in tmp_path.glob('*.json')] == ['1shot_seed3.json']


def test_the_time_of_a_cell_is_taken_from_what_is_most_like_it():
    def row(cell, seconds):
        return make_row(cell, {}, 0, 0.0, seconds)

    rain = Cell('nano', 'streets-rain', 'coop', 'semantic', 16, 0, RECIPE)
    estimate = tables.Estimate([row(fog('coop'), 40.0), row(fog('locn'), 80.0), row(FROZEN, 9.0)])
    assert estimate.seconds([fog('coop', 1)]) == 40.0
    assert estimate.seconds([rain]) == 40.0  # the method elsewhere
    assert estimate.seconds([fog('ssprompt'), FROZEN]) == 60.0 + 9.0  # the mean of what is trained
    assert tables.Estimate([]).seconds([rain]) is None
    assert estimate.text([rain]) == 'about 40 s' and estimate.text([rain] * 6) == 'about 4 min'


def test_a_foreign_csv_is_refused_and_left_alone(tmp_path, capsys):
    path = tmp_path / 'cells.csv'
    path.write_text('a,b\n1,2\n')
    assert tables.main(['small', *FOG, '--out', str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_text() == 'a,b\n1,2\n'


def test_a_dry_run_lists_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / 'results'
    assert tables.main(['small', *FOG, '--out', str(out), '--dry-run', '--seeds', '0', '4']) == 0
    shown = capsys.readouterr().out
    assert shown.count('missing ') == 3 and 'seed 4' in shown and not out.exists()
    assert shown.splitlines()[-1] == '3 cells, 3 to run: time not yet known'
