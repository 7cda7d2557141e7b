"""Names of mmprompt build under every scope, plain and prefixed."""

import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec

import mmengine.registry as root
import pytest
from mmengine.registry import DefaultScope

import mmprompt
from mmprompt.registry import CHILDREN, MODELS, publish

needs_ops = pytest.mark.skipif(
    find_spec('mmcv._ext') is None,
    reason='the first look-up under scope mmdet imports mmdet.models, which needs mmcv._ext',
)
SCOPES = ['mmseg', 'mmprompt', pytest.param('mmdet', marks=needs_ops)]


class Part:
    """A component with one argument, registered for the length of a test."""

    def __init__(self, size: int) -> None:
        self.size = size


@contextmanager
def registered(component, *registries):
    for registry in registries:
        registry.register_module(module=component)
    try:
        yield
    finally:
        for registry in (MODELS, root.MODELS):
            registry.module_dict.pop(component.__name__, None)


@pytest.mark.parametrize('prefix', ['', 'mmprompt.'])
@pytest.mark.parametrize('scope', SCOPES)
def test_every_name_is_found(scope, prefix):
    seen = 0
    for child in CHILDREN:
        with child.parent.switch_scope_and_registry(scope) as registry:
            for name, component in child.module_dict.items():
                if not component.__module__.startswith('mmprompt.'):
                    continue  # what another test registered
                assert registry.get(prefix + name) is component, f'{prefix}{name} under {scope}'
                seen += 1
    assert seen


@pytest.mark.parametrize('name', ['Part', 'mmprompt.Part'])
@pytest.mark.parametrize('scope', SCOPES)
def test_build_under_default_scope(scope, name):
    with registered(Part, MODELS), DefaultScope.overwrite_default_scope(scope):
        publish()
        part = root.MODELS.build(dict(type=name, size=3))
        assert type(part) is Part and part.size == 3


@pytest.mark.parametrize('name', ['Part', 'mmprompt.Part'])
def test_build_from_the_registry_of_mmseg(name):
    """A stock segmentor builds its backbone and head from mmseg's own registry."""
    mmseg_registry = pytest.importorskip('mmseg.registry')
    with registered(Part, MODELS):
        publish()
        assert mmseg_registry.MODELS.build(dict(type=name, size=1)).size == 1


def test_publish_again_changes_nothing():
    before = {child.name: dict(child.parent.module_dict) for child in CHILDREN}
    publish()
    publish()
    assert before == {child.name: dict(child.parent.module_dict) for child in CHILDREN}


def test_publish_refuses_a_name_that_another_package_owns():
    foreign = type('Part', (), {'__module__': 'another_package.models'})
    with registered(Part, MODELS), registered(foreign, root.MODELS):
        with pytest.raises(KeyError, match=r'another_package\.models\.Part'):
            publish()
        assert root.MODELS.module_dict['Part'] is foreign


FOREIGN_CONFIG = """
custom_imports = dict(imports=['mmprompt'])
default_scope = 'mmseg'
backbone = dict(type='mmseg.ResNet', depth=18, num_stages=4)
losses = [dict(type='SSPromptSemanticLoss'), dict(type='mmprompt.SSPromptSemanticLoss')]
"""
USE_CONFIG = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

config = Config.fromfile(sys.argv[1])
init_default_scope(config.default_scope)
names = [type(MODELS.build(loss)).__name__ for loss in config.losses]
print(names, type(MODELS.build(config.backbone)).__name__)
"""


def test_custom_imports_is_all_that_a_foreign_config_needs(tmp_path):
    config = tmp_path / 'foreign.py'
    config.write_text(FOREIGN_CONFIG, encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-c', USE_CONFIG, str(config)],
        capture_output=True,
        text=True,
        cwd=mmprompt.__path__[0] + '/..',
    )
    assert done.returncode == 0, done.stderr
    expected = "['SSPromptSemanticLoss', 'SSPromptSemanticLoss'] ResNet"
    assert done.stdout.splitlines()[-1] == expected
