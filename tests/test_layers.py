"""Who may import whom, read from the syntax trees: nothing is imported to find out."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ('tools', 'configs', 'benchmarks', 'tests')
#: room -> the rooms of mmprompt that it may import, besides itself.
MAY_IMPORT = {
    'registry': set(),
    'common': {'registry'},
    'evaluation': {'common', 'registry'},
    'datasets': {'common', 'registry'},
    'foundation': {'common', 'registry'},
    'methods': {'foundation', 'evaluation', 'datasets', 'common', 'registry'},
    'apis': {'methods', 'foundation', 'evaluation', 'datasets', 'common', 'registry'},
    'doctor': set(),
    '_quiet': set(),
    '__init__': {'_quiet', 'common', 'methods', 'foundation', 'evaluation', 'datasets', 'registry'},
}
#: They need compiled operators, which no code of ours may ask for.
COMPILED = ('mmcv.ops', 'mmcv._ext', 'mmdet.models')


def module_name(path: Path) -> str:
    """`mmprompt/common/freeze.py` -> `mmprompt.common.freeze`."""
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 2 else parts)


def imported(source: str, path: Path) -> set[str]:
    """Return the full dotted names that a file imports, anywhere in it, by any spelling.

    `from a import b` counts as both `a` and `a.b`, since `b` may be a module; a constant string
    given to `import_module` or `__import__` counts as well.
    """
    package = path.parent.parts
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) - node.level + 1]) if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f'{base}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            if called in ('import_module', '__import__'):
                names.add(str(node.args[0].value))
    return names


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + '.')


def violations(source: str, path: Path) -> list[str]:
    """Return what is wrong with the imports of one file; `path` is relative to the repository."""
    names = imported(source, path)
    wrong = [f'{name}: needs compiled ops' for name in names for c in COMPILED if under(name, c)]
    if path.parts[0] == 'tests':  # a test may ask whether the operators are there
        wrong = [line for line in wrong if not line.startswith('mmcv._ext')]
    if path.name == 'mmprompt_doctor.py':
        return wrong + [n for n in names if n.split('.')[0] not in sys.stdlib_module_names]
    if path.parts[0] != 'mmprompt':
        return wrong
    me = module_name(path)
    room = me.split('.')[1]
    for name in names:
        if any(under(name, outside) for outside in OUTSIDE):
            wrong.append(f'{name}: lies outside the package')
        other = name.split('.')[1] if name.startswith('mmprompt.') else None
        if other in (None, '__version__'):
            continue
        if other not in MAY_IMPORT:
            wrong.append(f'{name}: no such room')
        elif other != room and other not in MAY_IMPORT[room]:
            wrong.append(f'{name}: {room} may not import {other}')
        elif room == other == 'methods' and me != 'mmprompt.methods':
            if not under(name, '.'.join(me.split('.')[:3])) and name != 'mmprompt.methods':
                wrong.append(f'{name}: methods never import one another')
    return wrong


def python_files() -> list[Path]:
    found = [*ROOT.glob('*.py')]
    for room in ('mmprompt', *OUTSIDE):
        found += (ROOT / room).rglob('*.py')
    return sorted(path.relative_to(ROOT) for path in found)


def test_import_rules():
    files = python_files()
    assert Path('mmprompt/registry.py') in files
    wrong = {str(p): violations((ROOT / p).read_text(encoding='utf-8'), p) for p in files}
    assert not {path: found for path, found in wrong.items() if found}


def too_long(source: str) -> list[str]:
    """Return what a file exceeds: fewer than 400 lines, functions of at most 60."""
    tree, lines = ast.parse(source), source.count('\n')
    found = [f'{lines} lines'] if lines >= 400 else []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > 60:
                found.append(f'{node.name}: {length} lines')
    return found


def test_files_and_functions_are_short():
    long = {str(p): too_long((ROOT / p).read_text(encoding='utf-8')) for p in python_files()}
    assert not {path: found for path, found in long.items() if found}


def test_the_limits_bite():
    body = '    x = 1\n'
    assert not too_long('def f():\n' + body * 59) and too_long('def f():\n' + body * 60)
    assert not too_long('x = 1\n' * 399) and too_long('x = 1\n' * 400)


def test_every_room_is_known():
    rooms = {module_name(p).split('.')[1] for p in python_files() if p.parts[0] == 'mmprompt'}
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        ('mmprompt/common/a.py', 'import mmprompt.foundation.seem'),
        ('mmprompt/common/a.py', 'from ..methods import ssprompt'),
        ('mmprompt/common/a.py', 'from mmprompt import apis'),
        ('mmprompt/datasets/a.py', 'from mmprompt.foundation.seem import SEEM'),
        ('mmprompt/evaluation/a.py', 'def f():\n    from mmprompt.datasets import CamVid'),
        ('mmprompt/foundation/seem/a.py', 'from mmprompt.methods.ssprompt import head'),
        ('mmprompt/foundation/seem/a.py', 'from ...datasets import streets'),
        ('mmprompt/methods/spm/a.py', 'from mmprompt.methods.ssprompt.head import X'),
        ('mmprompt/methods/spm/a.py', 'from ..ssprompt import head'),
        ('mmprompt/methods/spm/a.py', 'from mmprompt.methods import ssprompt'),
        ('mmprompt/methods/spm/a.py', 'import mmprompt.apis'),
        ('mmprompt/registry.py', 'from mmprompt.common import errors'),
        ('mmprompt/apis/a.py', 'import tests.toy'),
        ('mmprompt/apis/a.py', 'from benchmarks import measure'),
        ('mmprompt/apis/a.py', 'from importlib import import_module\nimport_module("mmcv.ops")'),
        ('mmprompt/common/a.py', 'from mmcv import ops'),
        ('tools/a.py', 'from mmcv.ops import nms'),
        ('tests/test_a.py', 'import mmdet.models.detectors'),
        ('mmprompt_doctor.py', 'import torch'),
        ('mmprompt_doctor.py', 'from mmprompt import registry'),
    ],
)
def test_the_rules_bite(path, source):
    assert violations(source, Path(path))


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        (
            'mmprompt/methods/spm/a.py',
            'from .stages import Cut\nfrom mmprompt.common import freeze',
        ),
        ('mmprompt/methods/spm/__init__.py', 'from . import stages\nfrom .backbone import X'),
        ('mmprompt/methods/__init__.py', 'from mmprompt.methods import spm, ssprompt'),
        ('mmprompt/foundation/seem/a.py', 'from ...registry import MODELS'),
        ('mmprompt/common/a.py', 'from mmcv.cnn import ConvModule\nimport mmdet.structures'),
        ('tools/a.py', 'from mmprompt.apis import train'),
        ('mmprompt_doctor.py', 'import json, importlib.metadata'),
    ],
)
def test_the_rules_let_through(path, source):
    assert not violations(source, Path(path))
