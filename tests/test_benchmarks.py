"""The benchmarks run, at the smallest size."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'benchmarks/seem.py'), *options]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_seem_beside_timm(tmp_path):
    pytest.importorskip('timm')
    small = ['--variants', 'seem-nano', '--size', '64', '96', '--repeats', '2', '--threads', '1']
    done = run(*small, '--dtype', 'bfloat16', '--channels-last', '--out', str(tmp_path / 'table'))
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
