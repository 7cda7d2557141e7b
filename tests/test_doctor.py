"""The doctor names what is broken and the command that mends it, in environments made of fakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCTOR = str(ROOT / 'mmprompt_doctor.py')

#: A healthy environment without compiled operators: file -> source.
HEALTHY = {
    'torch/__init__.py': """
from types import SimpleNamespace as N
__version__ = '2.12.1'
version = N(cuda=None)
cuda = N(is_available=lambda: False)
def ones(*size):
    return N(numpy=lambda: N(sum=lambda: 2.0))
def tensor(values):
    return values
""",
    'torchvision/__init__.py': """
from types import SimpleNamespace as N
__version__ = '0.27.1'
ops = N(nms=lambda *args: None)
""",
    'numpy.py': "__version__ = '2.2.6'",
    'scipy/__init__.py': '',
    'scipy/optimize.py': '',
    'matplotlib.py': '',
    'pycocotools/__init__.py': '',
    'pycocotools/mask.py': '',
    'cv2.py': "__version__ = '4.12.0'",
    'ftfy.py': "__version__ = '6.3.1'",
    'regex.py': "__version__ = '2026.11.15'",
    'safetensors.py': "__version__ = '0.8.0'",
    'mmengine.py': "__version__ = '0.10.12'",
    'mmcv/__init__.py': "__version__ = '2.3.6'",
    'mmseg/__init__.py': "__version__ = '1.4.2'",
    # As the real one: an absent library is caught, a broken one is not.
    'mmseg/models.py': """
try:
    import mmcv._ext
except ModuleNotFoundError:
    pass
""",
    'mmseg/datasets.py': '',
    'mmdet/__init__.py': "__version__ = '3.5.1'",
    'mmdet/structures.py': '',
    'mmdet/datasets.py': '',
    'mmdet/evaluation.py': '',
    'mmprompt.py': "__version__ = '0.1.0'\nimport mmseg.models",
    'pkg_resources.py': '',
    # Nothing of the environment that runs the tests may be seen.
    'sitecustomize.py': """
import sys
sys.path[:] = [p for p in sys.path if not p.endswith(('site-packages', 'dist-packages'))]
sys.meta_path[:] = [f for f in sys.meta_path if not f.__module__.startswith('__editable__')]
""",
}
ONEDL = {
    'onedl_mmengine': '0.10.12',
    'onedl_mmcv': '2.3.6',
    'onedl_mmsegmentation': '1.4.2',
    'onedl_mmdetection': '3.5.1',
    'torch': '2.12.1',
}
OFFICIAL = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmsegmentation': '1.2.2',
    'mmdet': '3.3.0',
    'torch': '2.1.2',
}
UNDEFINED = (
    "raise ImportError('/env/mmcv/_ext.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
    "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs')"
)


def make_world(folder: Path, changes: dict, distributions: dict) -> dict:
    """Write the fake packages (a change of None removes one); return the environment variables."""
    for name, source in {**HEALTHY, **changes}.items():
        if source is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(source, encoding='utf-8')
    for name, version in distributions.items():
        info = folder / f'{name}-{version}.dist-info'
        info.mkdir()
        text = f'Metadata-Version: 2.1\nName: {name.replace("_", "-")}\nVersion: {version}\n'
        (info / 'METADATA').write_text(text, encoding='utf-8')
    return {**os.environ, 'PYTHONPATH': str(folder), 'PYTHONNOUSERSITE': '1'}


@pytest.fixture
def examine(tmp_path):
    """Return a function that runs the doctor in a fake world: (exit status, {check: finding})."""

    def run(changes=None, distributions=ONEDL):
        env = make_world(tmp_path, changes or {}, distributions)
        done = subprocess.run(
            [sys.executable, DOCTOR, '--json'],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        assert not done.stderr
        report = json.loads(done.stdout)
        assert report['works'] == (done.returncode == 0)
        return done.returncode, {finding['check']: finding for finding in report['findings']}

    return run


def mends(finding: dict) -> str:
    return '\n'.join(finding['mend'])


def test_healthy_without_compiled_operators(examine):
    status, found = examine()
    assert status == 0
    assert {f['status'] for f in found.values()} == {'ok', 'note'}
    assert found['mmcv._ext']['status'] == 'note' and 'fine' in found['mmcv._ext']['found']
    assert found['panopticapi']['status'] == 'note' and 'panopticapi.git' in mends(
        found['panopticapi']
    )
    assert found['open_clip']['status'] == 'note' and 'install open_clip_torch' in mends(
        found['open_clip']
    )
    assert found['family']['found'].startswith('onedl')
    assert found['mmseg']['found'] == '1.4.2'


def test_compiled_operators_that_load(examine):
    status, found = examine({'mmcv/_ext.py': ''})
    assert status == 0 and found['mmcv._ext']['found'] == 'loads'


@pytest.mark.parametrize(
    'source',
    [
        UNDEFINED,
        "raise ImportError('libc10.so: cannot open shared object file: No such file or directory')",
        "raise ImportError('libcudart.so.11.0: cannot open shared object file: No such file')",
        "raise ImportError('DLL load failed while importing _ext: The procedure was not found.')",
        'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)',
    ],
)
def test_operators_built_against_another_torch(examine, source):
    status, found = examine({'mmcv/_ext.py': source})
    assert status == 1
    assert found['mmcv._ext']['status'] == 'fail'
    assert 'built against another torch' in found['mmcv._ext']['found']
    assert 'uninstall -y onedl-mmcv' in found['mmcv._ext']['mend'][0]
    assert 'install --no-cache-dir onedl-mmcv==2.3.6' in found['mmcv._ext']['mend'][1]
    assert found['mmseg']['found'] == 'for the same reason as mmcv._ext'
    assert found['mmcv']['status'] == found['torch']['status'] == 'ok'


def test_operators_of_another_python_count_as_absent(examine):
    status, found = examine({'mmcv/_ext.cpython-38-x86_64-linux-gnu.so': ''})
    assert status == 0
    assert found['mmcv._ext']['status'] == 'warn'
    assert 'another Python' in found['mmcv._ext']['found'] and mends(found['mmcv._ext'])


def test_missing_mmseg(examine):
    absent = dict.fromkeys([name for name in HEALTHY if name.startswith('mmseg')])
    status, found = examine(absent, {k: v for k, v in ONEDL.items() if 'seg' not in k})
    assert status == 1
    assert "No module named 'mmseg'" in found['mmseg']['found']
    assert 'onedl-mmsegmentation==1.4.2' in mends(found['mmseg'])
    assert found['mmprompt']['status'] == 'fail'


def test_both_families(examine):
    status, found = examine(distributions={**ONEDL, **OFFICIAL, 'torch': '2.12.1'})
    assert found['family']['status'] == 'warn' and 'both families' in found['family']['found']
    for name in ('onedl-mmcv', 'mmcv', 'onedl-mmsegmentation', 'mmsegmentation'):
        assert name in found['family']['mend'][0].split()
    assert 'onedl-mmcv==2.3.6' in found['family']['mend'][1]
    assert status == 0  # all of it loads all the same


def test_official_family_keeps_to_itself(examine):
    status, found = examine({'mmcv/_ext.py': UNDEFINED}, OFFICIAL)
    assert status == 1
    assert found['family']['found'].startswith('official')
    assert found['mmcv._ext']['mend'][-1].startswith('MMCV_WITH_OPS=1 ')
    assert not any('onedl' in mends(finding) for finding in found.values())


def test_official_mmseg_needs_compiled_operators_itself(examine):
    status, found = examine({'mmseg/models.py': 'import mmcv._ext'}, OFFICIAL)
    assert status == 1
    assert 'imports compiled operators' in found['mmseg']['found']
    assert found['mmseg']['mend'][-1].startswith('MMCV_WITH_OPS=1 ')


def test_official_family_beside_a_new_torch(examine):
    status, found = examine(distributions=OFFICIAL)  # the fake torch is 2.12.1
    assert status == 0
    assert found['torch']['status'] == 'warn' and 'torch==2.1.2' in mends(found['torch'])


def test_official_family_without_pkg_resources(examine):
    status, found = examine({'pkg_resources.py': None}, OFFICIAL)
    assert status == 1 and "'setuptools<81'" in mends(found['setuptools'])


def test_nothing_installed(examine):
    status, found = examine(dict.fromkeys(set(HEALTHY) - {'sitecustomize.py'}), {})
    assert status == 1
    assert found['family']['status'] == 'warn'
    assert 'torch==2.12.1 torchvision==0.27.1' in mends(found['torch'])
    assert 'onedl-mmcv==2.3.6' in mends(found['mmcv'])


def test_mmprompt_itself_is_not_installed(examine):
    status, found = examine({'mmprompt.py': None})
    assert status == 1 and f'-m pip install -e {ROOT}' in mends(found['mmprompt'])


#: (check, changed file, source, what its cure must say, exit status)
BROKEN = [
    (
        'torchvision',
        'torchvision/__init__.py',
        "raise RuntimeError('operator torchvision::nms does not exist')",
        'install --no-deps torchvision==0.27.1',
        1,
    ),
    (
        'opencv-python-headless',
        'cv2.py',
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')",
        'opencv-python-headless',
        1,
    ),
    (
        'mmdet',
        'mmdet/datasets.py',
        "raise AttributeError('`np.sctypes` was removed in the NumPy 2.0 release.')",
        "'imaug>=0.4.3'",
        0,
    ),
    (
        'numpy',
        'pycocotools/mask.py',
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility.')",
        '--force-reinstall --no-cache-dir',
        1,
    ),
    ('torch', 'numpy.py', None, 'install', 1),
    (
        'mmseg',
        'mmseg/__init__.py',
        "raise AssertionError('MMCV==2.2.0 is used but incompatible. Please install mmcv<2.2.0.')",
        'onedl-mmcv==2.3.6',
        1,
    ),
    ('regex', 'regex.py', None, 'install regex', 1),
    ('safetensors', 'safetensors.py', None, 'install safetensors', 1),
    ('mmprompt', 'mmprompt.py', "raise ImportError('of its own')", "-c 'import mmprompt'", 1),
]


@pytest.mark.parametrize(('check', 'file', 'source', 'cure', 'exit_status'), BROKEN)
def test_broken(examine, check, file, source, cure, exit_status):
    changes = {file: source}
    if check == 'torch':
        numpy_is_gone = "    raise RuntimeError('Numpy is not available')"
        ones = HEALTHY['torch/__init__.py'].replace('    return N(numpy', numpy_is_gone + '\n#')
        changes = {'torch/__init__.py': ones}
    status, found = examine(changes)
    assert status == exit_status
    assert found[check]['status'] == ('fail' if exit_status else 'warn')
    assert cure in mends(found[check])


def test_report_in_words(tmp_path):
    env = make_world(tmp_path, {'mmcv/_ext.py': UNDEFINED}, ONEDL)
    done = subprocess.run(
        [sys.executable, DOCTOR], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 1
    assert 'FAIL  mmcv._ext' in done.stdout and 'mend: ' in done.stdout
    assert done.stdout.splitlines()[-1].startswith('mmprompt cannot work here yet: mmcv._ext')


def test_a_failing_import_points_to_the_doctor(tmp_path):
    broken = {'mmengine.py': "raise RuntimeError('broken on purpose')"}
    changes = {**dict.fromkeys(set(HEALTHY) - {'sitecustomize.py'}), **broken}
    env = make_world(tmp_path, changes, {})
    env['PYTHONPATH'] += os.pathsep + str(ROOT)
    for command in (['-c', 'import mmprompt'], ['-m', 'mmprompt.doctor']):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert done.returncode == 1
        assert 'mmprompt-doctor' in done.stderr and 'mmprompt_doctor.py' in done.stderr


def test_alias_in_this_environment():
    """The one slow test here: all the real probes, where the tests run."""
    done = subprocess.run(
        [sys.executable, '-m', 'mmprompt.doctor'], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == 'mmprompt can work here'
