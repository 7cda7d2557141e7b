"""A wheel, not an editable install: complete, and working from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip('wheel')


def run(*command: str, cwd: Path, env: dict | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy of what it is made of, without a network."""
    source = tmp_path_factory.mktemp('source')
    junk = shutil.ignore_patterns('__pycache__')
    for name in ('mmprompt', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=junk)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, source / file.name)
    out = tmp_path_factory.mktemp('wheel')
    options = ['--no-deps', '--no-build-isolation', '--no-index', '-q', '-w', str(out)]
    run(sys.executable, '-m', 'pip', 'wheel', *options, '.', cwd=source)
    (built,) = out.glob('mmprompt-*.whl')
    return built


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('site')
    options = ['--no-deps', '--no-index', '-q', '--target', str(folder)]
    run(sys.executable, '-m', 'pip', 'install', *options, str(wheel), cwd=folder)
    return folder


def files(folder: str, *suffixes: str) -> set[str]:
    found = (ROOT / folder).rglob('*')
    return {str(path.relative_to(ROOT)) for path in found if path.suffix in suffixes}


def test_holds_code_configs_tools_and_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files('mmprompt', '.py') <= names
    assert 'mmprompt/weights/seem-nano_streets.safetensors' in names
    assert files('mmprompt/weights', '.safetensors', '.json') <= names
    shipped = files('configs', '.py', '.txt') | files('tools', '.py')
    assert shipped and {f'mmprompt/.mim/{name}' for name in shipped} <= names
    assert 'mmprompt_doctor.py' in names
    strangers = [name for name in names if name.startswith(('tests/', 'configs/', 'tools/'))]
    assert not strangers


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [n for n in archive.namelist() if n.endswith('.dist-info/METADATA')]
    text = archive.read(metadata).decode()
    needed = [line for line in text.splitlines() if line.startswith('Requires-Dist: ')]
    always = [line for line in needed if 'extra ==' not in line]
    assert any('torch>=' in line for line in always)
    # Installing mmprompt beside one OpenMMLab family must never pull the other.
    assert not [
        line for line in always if line.startswith(('Requires-Dist: mm', 'Requires-Dist: onedl'))
    ]
    extras = {line.split()[1] for line in text.splitlines() if line.startswith('Provides-Extra: ')}
    assert extras == {'tests', 'optional', 'onedl', 'official'}
    (scripts,) = [n for n in archive.namelist() if n.endswith('entry_points.txt')]
    assert 'mmprompt-doctor = mmprompt_doctor:main' in archive.read(scripts).decode()


FROM_AN_EMPTY_FOLDER = """
import sys
from pathlib import Path

site = Path(sys.argv[1])
sys.path.insert(0, str(site))
sys.meta_path[:] = [f for f in sys.meta_path if not f.__module__.startswith('__editable__')]

import mmprompt
from mmengine.config import Config
from mmengine.registry import MODELS

package = Path(mmprompt.__file__).parent
assert package == site / 'mmprompt', package
configs = sorted((package / '.mim/configs').rglob('*.py'))
leaves = [path for path in configs if '_base_' not in path.parts]
for path in leaves:
    Config.fromfile(str(path))
seem = Config.fromfile(str(package / '.mim/configs/_base_/models/seem-nano.py')).seem
MODELS.build(dict(seem, type='mmprompt.SEEM'))
print('works with', len(leaves), 'configs')

import numpy as np
from mmprompt.apis import Inferencer

segment = Inferencer('configs/ssprompt/nano_streets-fog_zero-shot.py')
image = np.random.default_rng(0).integers(256, size=(64, 128, 3), dtype=np.uint8)
print('segments', *segment(image).pred_sem_seg.data.shape)

import runpy

tool = package / '.mim/tools/make_streets.py'
sys.argv = [str(tool), '--out', 'made', '--num', '1', '--size', '64x128']
runpy.run_path(str(tool), run_name='__main__')
"""


def test_works_from_an_empty_folder(site, tmp_path):
    env = {**os.environ, 'MMPROMPT_CACHE': str(tmp_path / 'cache')}
    answer = run(sys.executable, '-c', FROM_AN_EMPTY_FOLDER, str(site), cwd=tmp_path, env=env)
    assert 'works with ' in answer
    assert 'segments 1 64 128\n' in answer
    assert len(list((tmp_path / 'made').glob('*/train/*/*.png'))) == 3
