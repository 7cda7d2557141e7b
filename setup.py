"""Packaging of mmprompt. No requirement names an OpenMMLab distribution; only extras do."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Goes to `mmprompt/.mim` in a wheel, the place where OpenMMLab packages keep such things.
SHIPPED = ('configs', 'tools')


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
    """Copies configs and command lines into the wheel; an editable install finds them beside it."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mmprompt/.mim'
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            junk = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(ROOT / name, target / name, ignore=junk)


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
