"""The benchmarks run, at the smallest size."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import CLASSES, toy_seem, write_base

ROOT = Path(__file__).resolve().parent.parent


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / f'benchmarks/{name}.py'), *options]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_seem_beside_timm(tmp_path):
    pytest.importorskip('timm')
    small = ['--variants', 'seem-nano', '--size', '64', '96', '--repeats', '2', '--threads', '1']
    done = run(
        'seem', *small, '--dtype', 'bfloat16', '--channels-last', '--out', str(tmp_path / 'table')
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'table.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['part'] for row in rows] == ['backbone', 'encode', 'decode']
    assert all(float(row['seconds']) > 0 for row in rows)
    backbone = rows[0]
    assert float(backbone['time ratio']) > 0 and float(backbone['its seconds']) > 0
    # The two depthwise convolutions per block that timm's FocalNet has not.
    assert (backbone['parameters (M)'], backbone['its parameters (M)']) == ('0.8', '0.7')
    written = (tmp_path / 'table.md').read_text()
    assert 'bfloat16 autocast' in written and 'channels-last' in written
    assert written.splitlines()[2:] == done.stdout.splitlines()[2:]


def test_spm_beside_full_and_head_tuning(tmp_path):
    small = ['--backbone', 'r18', '--size', '64', '96', '--repeats', '1', '--threads', '1']
    done = run('spm', *small, '--clock', 'processor', '--out', str(tmp_path / 'table'))
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'table.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    arms = [(row['part'], row['arm']) for row in rows]
    steps = [('step', arm) for arm in ('spm', 'head', 'full')]
    assert arms == [('forward', 'spm'), ('forward', 'head'), *steps]
    assert all(float(row['seconds']) > 0 and float(row['peak (MB)']) > 0 for row in rows)
    trained = {row['arm']: (row['trained: backbone (M)'], row['prompt (M)']) for row in rows[2:]}
    assert trained['spm'][0] == trained['head'][0] == '0.00' and trained['head'][1] == '0.00'
    assert trained['full'] == ('11.20', '0.00') and float(trained['spm'][1]) > 3
    assert [row['time / full'] for row in rows[:2]] == ['', '']
    assert rows[-1]['time / full'] == rows[-1]['memory / full'] == '1.00'
    assert done.stdout.startswith('ResNetV1c-18, PSPHead, 150 classes, 64x96')


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads the memory of Linux')
def test_peak_memory_of_a_known_call():
    import torch

    measure = loaded('measure')
    count = 25_000_000  # float32: 100 MB

    def build_and_drop():
        return torch.ones(count).sum()

    torch.ones(count)  # an earlier, equal peak must not hide this one
    assert 90 < measure._peak_of(build_and_drop, 'cpu') < 120
    assert measure._peak_of(lambda: None, 'cpu') < 5


def test_many_prompts_beside_one_by_one(tmp_path):
    words = loaded('many_prompts').WORDS
    base = write_base(tmp_path / 'base.safetensors', toy_seem(words))
    small = ['--counts', '1', '3', '--size', '64', '96', '--repeats', '1', '--threads', '1']
    done = run('many_prompts', '--base', str(base), *small, '--clock', 'processor')
    assert done.returncode == 0, done.stderr
    head, *table = done.stdout.splitlines()
    assert head.endswith('64x96, cpu, processor')
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table[2:]]
    assert [row[:2] for row in rows] == [
        *(['classes', '1'], ['classes', '3'], ['queries', '1'], ['queries', '3']),
    ]
    for _, count, many, one, apart, ratio, further in rows:
        assert min(map(float, (many, one, apart))) > 0
        assert float(ratio) > 0  # of times that are rounded to two digits here
        assert (further == '-') == (count == '1')


@pytest.mark.parametrize('method', ['coop', 'locn'])
def test_texts_of_77_tokens_change_no_embedding(method, monkeypatch):
    """`coop-77` and `locn-77` measure what the published code computes: the same, only longer."""
    import torch

    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    pad_texts = loaded('ssprompt_efficiency').pad_texts
    from mmprompt.registry import MODELS

    torch.manual_seed(0)
    encoder = toy_seem()['text_encoder']
    encoder.update(width=16, num_layers=2, num_heads=2, context_length=77)
    kind = dict(coop='CoOp', locn='LOCN')[method]
    prompt = MODELS.build(
        dict(type=kind, num_prompts=len(CLASSES), dim=encoder['dim'], text_encoder=encoder)
    ).double()
    prompt.read(CLASSES)
    lengths = []
    prompt.text_encoder.blocks[0].register_forward_pre_hook(
        lambda module, inputs: lengths.append(inputs[0].shape[1])
    )
    short = prompt()
    pad_texts(prompt)
    torch.testing.assert_close(prompt(), short, rtol=1e-12, atol=1e-12)
    assert lengths[0] < lengths[1] == 77


def test_patch_loading_beside_decoded_masks(tmp_path):
    small = ['--size', '60', '80', '--patches', '12', '--images', '2', '--clock', 'processor']
    done = run('patch_loading', *small, '--out', str(tmp_path / 'table.csv'))
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'table.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    steps = ['load', 'units', 'warp and IoP', 'all']
    assert [(row['way'], row['step']) for row in rows] == [
        (way, step) for way in ('runs', 'masks') for step in steps
    ]
    assert all(float(row['ms']) > 0 for row in rows) and rows[-1]['ratio'] == '1.000'
    assert done.stdout == (tmp_path / 'table.csv').read_text()


def test_samcp_part_by_part(tmp_path):
    small = ['--patches', '8', '--classes', '5', '--size', '64', '96', '--repeats', '1']
    small += ['--threads', '1', '--clock', 'processor', '--backbones', 'frozen']
    done = run('samcp', *small, '--out', str(tmp_path / 'table'))
    assert done.returncode == 0, done.stderr
    tables = {}
    for part in ('predict', 'step'):
        with open(tmp_path / f'table_{part}.csv', newline='') as stream:
            (tables[part],) = csv.DictReader(stream)
    predict, step = tables['predict'], tables['step']
    parts = [float(predict[f'{p} (s)']) for p in ('backbone', 'encoder', 'decoder', 'merging')]
    assert min(parts) > 0 and abs(sum(parts) - float(predict['without loading (s)'])) < 3e-3
    assert int(predict['prompts of 3.1']) > 5 * 5
    assert int(step['queries']) >= 8 + 5 and 8 < int(step['boxes']) <= int(step['queries'])
    assert float(step['peak (MB)']) > float(step['counted (MB)']) * 0.5
    assert done.stdout.count('SAM-CP with ResNet-50, 64x96') == 2


def test_samcp_with_any_number_of_classes(tmp_path):
    small = ['--classes', '0', '1', '300', '--patches', '8', '--size', '64', '96']
    small += ['--repeats', '1', '--threads', '1', '--clock', 'processor']
    done = run('samcp_classes', *small, '--out', str(tmp_path / 'table'))
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'table.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['classes'] for row in rows] == ['0', '1', '300']
    patches = int(rows[0]['queries'])
    assert [int(row['queries']) - patches for row in rows] == [0, 1, 300]
    assert float(rows[2]['head (s)']) > float(rows[0]['head (s)']) > 0
    assert min(float(row['predict (s)']) for row in rows) > 0


def test_the_time_of_samcp_is_split_between_patches_and_the_rest(tmp_path):
    pytest.importorskip('skimage')
    from toy_samcp_runs import make_config, write_data

    from mmprompt.apis.reproduce.samcp_tables import read_times

    write_data(tmp_path, images=3)
    cfg = make_config(tmp_path, tmp_path / 'work')
    cfg.test_dataloader = cfg.train_dataloader
    cfg.test_dataloader.dataset.pipeline = [
        step for step in cfg.train_dataloader.dataset.pipeline if 'Random' not in step.type
    ]
    cfg.dump(tmp_path / 'samcp_nano_streets.py')
    small = ['--parts', 'split', '--config', str(tmp_path / 'samcp_nano_streets.py')]
    small += ['--images', '2', '--repeats', '1', '--threads', '1']
    out = ['--out', str(tmp_path / 'samcp')]
    done = run('samcp', *small, *out)
    assert done.returncode == 0, done.stderr
    again = run('samcp', *small, *out, '--generator-options', 'scales=[300]')
    with open(tmp_path / 'samcp_split.csv', newline='') as stream:
        (row,) = csv.DictReader(stream)
    making, rest, total = (float(row[f'{k} (s)']) for k in ('patches', 'the rest', 'total'))
    assert min(making, rest) > 0 and total == pytest.approx(making + rest, abs=2e-3)
    assert (row['generator'], row['images']) == ('felzenszwalb', '2')
    assert 0 < float(row['patches']) and row['patches'] in again.stdout
    smooth = ['--generator-options', 'sigma=0.8', '--label', 'felzenszwalb-smooth']
    other = run('samcp', *small, *out, *smooth)
    assert other.returncode == 0, other.stderr
    times = read_times(tmp_path / 'samcp_split.csv')
    assert times[('nano', 'streets'), 'other', 'total (s)'][0] > 0
    both = run('samcp', *small, '--generator', 'felzenszwalb', 'sam', '--label', 'x')
    assert both.returncode and '--label: expected one generator' in both.stderr
    assert times[('nano', 'streets'), 'all', 'total (s)'] == [total]


def test_the_memory_of_a_step_of_samcp_is_as_counted(monkeypatch):
    """The count on paper beside the tensors that autograd keeps."""
    import torch
    from mmengine.registry import init_default_scope

    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import samcp_memory
    import samcp_scene

    init_default_scope('mmprompt')
    torch.manual_seed(0)
    model = samcp_scene.build_model(6, frozen=False).train()
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive = []  # no storage takes the place of another

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        maps = model.neck(model.backbone(torch.randn(1, 3, 64, 96)))
    step = samcp_memory.Step(64, 96, 8, 6, 4, 600, 8, 3)
    counted = samcp_memory.activations(step, frozen=False)
    total = sum(kept.values()) / 1e6
    assert total == pytest.approx(counted['backbone'] + counted['neck'], rel=0.02), len(maps)


def test_patches_beside_the_library(tmp_path):
    pytest.importorskip('transformers')
    small = ['--points-per-side', '2', '--side', '128', '--size', '40', '60', '--repeats', '1']
    done = run('patches', *small, '--threads', '1', '--out', str(tmp_path / 'table.md'))
    assert done.returncode == 0, done.stderr
    written = (tmp_path / 'table.md').read_text()
    assert written == done.stdout
    row = [cell.strip() for cell in written.splitlines()[-1].strip('|').split('|')]
    assert row[:3] == ['small SamModel', '2 x 2', '60x40']
    assert all(float(cell) > 0 for cell in row[3:])
