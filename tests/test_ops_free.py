"""Nothing of ours needs a compiled mmcv operator: here `mmcv._ext` cannot be imported at all."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

try:
    importlib.metadata.version('mmsegmentation')
except importlib.metadata.PackageNotFoundError:
    pass
else:
    pytest.skip(
        'MMSegmentation 1.2.2 imports mmcv.ops itself; its maintained fork does not',
        allow_module_level=True,
    )

#: Python imports it at every start, so children of the child are bound by it as well.
BLOCKER = """
import sys
from importlib.machinery import PathFinder


class NoCompiledOps(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        # Not found, rather than an error: mmengine asks whether the module is there.
        hidden = name == 'mmcv._ext' or name.startswith('mmcv._ext.')
        return None if hidden else super().find_spec(name, path, target)


sys.meta_path[:] = [NoCompiledOps if f is PathFinder else f for f in sys.meta_path]
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs Python source, with arguments, without compiled operators."""
    (tmp_path / 'sitecustomize.py').write_text(BLOCKER, encoding='utf-8')
    path = os.pathsep.join(map(str, [tmp_path, ROOT, ROOT / 'tests']))
    env = {**os.environ, 'PYTHONPATH': path, 'MMPROMPT_CACHE': str(tmp_path / 'cache')}

    def execute(source: str, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, '-c', source, *args],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return execute


ONE_PROCESS = """
import runpy
import sys
from pathlib import Path

try:
    import mmcv._ext
except ModuleNotFoundError:
    pass
else:
    sys.exit('the blocker does not block')

import torch
import toy
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmprompt_doctor
from mmprompt.apis.prepare import few_shot
from mmprompt.apis import test
from mmprompt.apis import train
from mmprompt.datasets.streets import command

torch.set_num_threads(1)
leaf, *tools = sys.argv[1:]


def check(name, status):
    print('status', name, status, flush=True)
    if status:
        sys.exit(f'{name}: {status}')


for tool in tools:
    sys.argv = [tool, '--help']
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as leave:
        check(Path(tool).name, leave.code or 0)

cfg = toy.shrink(Config.fromfile(leaf), Path.cwd())
cfg.dump('toy.py')
for scope in ('mmseg', 'mmprompt'):
    init_default_scope(scope)
    MODELS.build(cfg.model)
size = ['--num', '2', '--size', '64x128']
check('make_streets', command.main(['--out', 'streets-made', *size]))
check('few_shot', few_shot.main(['toy.py', '--k', '1', '--out', 'manifest.json']))
drawn = 'train_dataloader.dataset.'
options = ['--cfg-options', drawn + 'manifest=manifest.json', drawn + 'k=None']
check('train', train.main(['toy.py', *options]))
check('test', test.main(['toy.py', 'work/prompt.safetensors', '--out', 'metrics.json']))
# Each probe is a process that imports a library; two tell what is asked here.
mmprompt_doctor.PROBES = {name: mmprompt_doctor.PROBES[name] for name in ('mmcv._ext', 'mmprompt')}
check('doctor', mmprompt_doctor.main([]))
"""


def test_every_command_works(run, tmp_path):
    leaf = ROOT / 'configs/ssprompt/nano_streets-fog_16shot.py'
    tools = sorted((ROOT / 'tools').glob('*.py'))
    assert tools
    answer = run(ONE_PROCESS, str(leaf), *map(str, tools))
    assert [line for line in answer.splitlines() if line.startswith('status ')] == [
        f'status {name} 0'
        for name in (
            *(tool.name for tool in tools),
            *('make_streets', 'few_shot', 'train', 'test', 'doctor'),
        )
    ]
    assert answer.count('usage:') == len(tools)
    assert len(list((tmp_path / 'streets-made').glob('*/train/*/*.png'))) == 6
    assert 'mIoU' in json.loads((tmp_path / 'metrics.json').read_text())['metrics']
