"""Packaging of mmprompt. No requirement names an OpenMMLab distribution; only extras do."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: What OpenMMLab's tools look for in `<package>/.mim`: `_base_ = 'mmprompt::…'` finds it there.
SHIPPED = ('configs', 'tools', 'model-index.yml')


def version() -> str:
    """Read `__version__` as text: importing mmprompt would need torch in the build environment."""
    text = (ROOT / 'mmprompt/__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def requirements(name: str) -> list:
    """Return the requirement lines of requirements/NAME.txt without comments and options."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    lines = [line.split('#')[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith('-')]


class BuildPy(build_py):
    """Puts configs and command lines into `mmprompt/.mim`: copies in a wheel, links if editable."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            self._link(ROOT / 'mmprompt/.mim')
        else:
            self._copy(Path(self.build_lib) / 'mmprompt/.mim')

    def _link(self, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in SHIPPED:
            link = target / name
            if link.is_symlink():
                link.unlink()
            if (ROOT / name).exists():
                link.symlink_to(os.path.join('..', '..', name))

    def _copy(self, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in SHIPPED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, target / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
                )
            elif source.exists():
                shutil.copy2(source, target / name)


setup(
    name='mmprompt',
    version=version(),
    description='Learned prompts for frozen segmentation models, as OpenMMLab components',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmprompt authors',
    license='Apache-2.0',
    keywords='computer vision, segmentation, prompt learning, MMSegmentation, MMDetection',
    python_requires='>=3.10',
    packages=find_packages(include=['mmprompt', 'mmprompt.*']),
    py_modules=['mmprompt_doctor'],
    package_data={'mmprompt': ['weights/*.safetensors', 'weights/*.json']},
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name) for name in ('tests', 'optional', 'onedl', 'official')
    },
    entry_points={'console_scripts': ['mmprompt-doctor = mmprompt_doctor:main']},
    cmdclass={'build_py': BuildPy},
    zip_safe=False,
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
