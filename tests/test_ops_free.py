"""Nothing of ours needs a compiled mmcv operator: here `mmcv._ext` cannot be imported at all."""

import importlib.metadata
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

class NoCompiledOps:
    def find_spec(self, name, path=None, target=None):
        if name == 'mmcv._ext' or name.startswith('mmcv._ext.'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, NoCompiledOps())
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs Python source, with arguments, without compiled operators."""
    (tmp_path / 'sitecustomize.py').write_text(BLOCKER, encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])}

    def execute(source: str, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, '-c', source, *args],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return execute


BUILD_AND_PREDICT = """
import sys

try:
    import mmcv._ext
except ModuleNotFoundError:
    pass
else:
    sys.exit('the blocker does not block')

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmprompt

seem = Config.fromfile(sys.argv[1]).seem
for scope in ('mmseg', 'mmprompt'):
    init_default_scope(scope)
    model = MODELS.build(dict(seem, type='mmprompt.SEEM')).eval()
with torch.no_grad():
    out = model.decode(model.encode_image(torch.zeros(1, 3, 64, 64)), torch.zeros(3, 80))
print(out.pred_logits.shape[-1], out.pred_masks.dim())
"""


def test_import_build_and_predict(run):
    config = ROOT / 'configs/_base_/models/seem-nano.py'
    assert run(BUILD_AND_PREDICT, str(config)).splitlines()[-1] == '3 4'


HELP = """
import runpy, sys

for tool in sys.argv[1:]:
    sys.argv = [tool, '--help']
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as leave:
        if leave.code:
            sys.exit(f'{tool} --help: {leave.code}')
    print('helped by', tool)
"""


def test_every_command_line_answers(run):
    tools = sorted(str(path) for path in (ROOT / 'tools').glob('*.py'))
    assert tools
    answer = run(HELP, *tools)
    assert [line for line in answer.splitlines() if line.startswith('helped by')] == [
        f'helped by {tool}' for tool in tools
    ]
    assert answer.count('usage:') == len(tools)
