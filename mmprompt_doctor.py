"""What is wrong with this Python environment, and the command that mends it.

Run as `mmprompt-doctor`, `python -m mmprompt.doctor` or `python mmprompt_doctor.py`. Only the
standard library is imported here, and every package is tried in a process of its own, so the doctor
still answers where `import mmprompt` dies or a library crashes the interpreter. Exit status: 0 if
mmprompt can work in this environment, otherwise 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

FAMILIES = {
    'onedl': {
        'mmengine': 'onedl-mmengine==0.10.12',
        'mmcv': 'onedl-mmcv==2.3.6',
        'mmseg': 'onedl-mmsegmentation==1.4.2',
        'mmdet': 'onedl-mmdetection==3.5.1',
    },
    'official': {
        'mmengine': 'mmengine==0.10.7',
        'mmcv': 'mmcv==2.1.0',
        'mmseg': 'mmsegmentation==1.2.2',
        'mmdet': 'mmdet==3.3.0',
    },
}
#: Other official distributions that bring the import name mmcv.
ALSO_OFFICIAL = ('mmcv-lite', 'mmcv-full')

#: Each runs in its own process and prints one JSON object as its last line.
PROBES = {
    'torch': """
import torch
torch.ones(2).numpy().sum()
answer = dict(version=torch.__version__, cuda_build=torch.version.cuda,
              cuda=torch.cuda.is_available(),
              device=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None)
""",
    'torchvision': """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
answer = dict(version=torchvision.__version__)
""",
    'numpy': 'import numpy, scipy.optimize, matplotlib, pycocotools.mask\n'
    'answer = dict(version=numpy.__version__)',
    'opencv-python-headless': 'import cv2; answer = dict(version=cv2.__version__)',
    'ftfy': 'import ftfy; answer = dict(version=ftfy.__version__)',
    'regex': 'import regex; answer = dict(version=regex.__version__)',
    'safetensors': 'import safetensors; answer = dict(version=safetensors.__version__)',
    'mmengine': 'import mmengine; answer = dict(version=mmengine.__version__)',
    'mmcv': 'import mmcv; answer = dict(version=mmcv.__version__)',
    'mmcv._ext': """
import glob, os, mmcv
import torch
answer = dict(version='loads', files=[])
try:
    import mmcv._ext
except ModuleNotFoundError as error:
    if error.name != 'mmcv._ext':
        raise
    answer = dict(version=None, files=[os.path.basename(file) for folder in mmcv.__path__
                                       for file in glob.glob(os.path.join(folder, '_ext*.so'))])
""",
    'mmseg': 'import mmseg, mmseg.models, mmseg.datasets; answer = dict(version=mmseg.__version__)',
    'mmdet': 'import mmdet, mmdet.structures, mmdet.datasets, mmdet.evaluation\n'
    'answer = dict(version=mmdet.__version__)',
    'setuptools': """
import importlib.util
answer = dict(version='present', pkg_resources=bool(importlib.util.find_spec('pkg_resources')))
""",
    'panopticapi': 'import panopticapi; answer = dict(version="present")',
    'open_clip': 'import open_clip; answer = dict(version=open_clip.__version__)',
    'mmprompt': 'import mmprompt; answer = dict(version=mmprompt.__version__)',
}
#: What a failure of these means: 'note' (mmprompt does without) or 'warn' (some of it does not).
MILD = {'panopticapi': 'note', 'open_clip': 'note', 'mmdet': 'warn'}
TIMEOUT_S = 180


@dataclass
class Finding:
    """One line of the report: status is 'ok', 'note' (works without), 'warn' or 'fail'."""

    check: str
    status: str
    found: str
    mend: list[str] = field(default_factory=list)


@dataclass
class Probe:
    """What one probing process answered, or its error line and all of its standard error."""

    answer: dict | None
    error: str = ''
    stderr: str = ''


def run_probe(code: str) -> Probe:
    """Run `code`, which sets `answer`, in a fresh interpreter; a crash or time-out is an error."""
    code += '\nimport json\nprint("\\n" + json.dumps(answer))'
    try:
        done = subprocess.run(
            [sys.executable, '-c', code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Probe(None, f'no answer within {TIMEOUT_S} seconds')
    if done.returncode == 0:
        return Probe(json.loads(done.stdout.splitlines()[-1]), stderr=done.stderr)
    if done.returncode < 0:
        crash = signal.Signals(-done.returncode).name
        return Probe(None, f'the interpreter crashed ({crash})', done.stderr)
    # The first exception of a chain is the cause; those below only wrap it.
    named = re.findall(r'^[\w.]*(?:Error|Exception|Exit)\b.*', done.stderr, re.MULTILINE)
    last = (done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]
    return Probe(None, named[0] if named else last, done.stderr)


def pip(arguments: str) -> str:
    """Return a pip command line for the interpreter that is examined."""
    return f'{shlex.quote(sys.executable)} -m pip {arguments}'


def version_of(distribution: str) -> str:
    """Return the installed version by its metadata alone, or '' if there is none."""
    try:
        return importlib.metadata.version(distribution) or ''
    except importlib.metadata.PackageNotFoundError:
        return ''


class Cures:
    """The commands that mend things, given which distributions are installed."""

    def __init__(self) -> None:
        self.installed = self._distributions()
        self.held = [family for family, names in self.installed.items() if names]
        self.family = 'official' if self.held == ['official'] else 'onedl'

    @staticmethod
    def _distributions() -> dict[str, dict[str, str]]:
        """Return {family: {distribution: version}}."""
        owner = dict.fromkeys(ALSO_OFFICIAL, 'official')
        for family, specs in FAMILIES.items():
            owner.update({spec.split('==')[0]: family for spec in specs.values()})
        found: dict[str, dict[str, str]] = {family: {} for family in FAMILIES}
        for name in owner:
            if version_of(name):
                found[owner[name]][name] = version_of(name)
        return found

    def install_family(self) -> list[str]:
        return [pip('install --no-cache-dir ' + ' '.join(FAMILIES[self.family].values()))]

    def one_family(self) -> list[str]:
        # They share import folders: removing one tears holes into the other, so both must go.
        everything = ' '.join(name for names in self.installed.values() for name in names)
        return [pip(f'uninstall -y {everything}'), *self.install_family()]

    def fitting_mmcv(self) -> list[str]:
        """An mmcv without compiled operators, or compiled here: the official mmseg imports them."""
        names = [name for family in self.installed.values() for name in family if 'mmcv' in name]
        remove = [pip(f'uninstall -y {" ".join(names)}')] if names else []
        spec = FAMILIES[self.family]['mmcv']
        if self.family == 'onedl':
            return [*remove, pip(f'install --no-cache-dir {spec}')]
        build = pip(f'install --no-cache-dir --no-build-isolation {spec}')
        return [*remove, pip("install 'setuptools<81' wheel"), f'MMCV_WITH_OPS=1 {build}']

    def matching_torchvision(self) -> list[str]:
        """The torchvision of this torch: 0.(N + 15).P goes with 2.N.P."""
        torch = re.match(r'2\.(\d+)\.(\d+)(?:\+(\w+))?', version_of('torch'))
        if not torch:
            return [pip('install torch==2.12.1 torchvision==0.27.1')]
        index = f'+{torch[3]} --index-url https://download.pytorch.org/whl/{torch[3]}'
        spec = f'torchvision==0.{int(torch[1]) + 15}.{torch[2]}' + (index if torch[3] else '')
        return [pip(f'install --no-deps {spec}')]

    def matching_numpy(self) -> list[str]:
        """A NumPy of the generation that torch and the family were built for."""
        if self.family == 'official' or re.match(r'(1|2\.[0-2])\.', version_of('torch')):
            return [pip("install 'numpy<2'")]
        packages = "'numpy>=2,<2.3' scipy matplotlib pycocotools"
        return [pip(f'install --force-reinstall --no-cache-dir {packages}')]

    def mmprompt_itself(self) -> list[str]:
        here = Path(__file__).resolve().parent
        return [pip(f'install -e {shlex.quote(str(here))}')]


#: (pattern over check, error and standard error; what it means; the cure). The first match counts.
RULES = (
    (
        r'(?s)(?=.*(mmcv\W_ext|importing _ext))(?=.*(undefined symbol|symbol not found|crashed|'
        r'DLL load failed|lib(torch|c10|cu[a-z]+)[\w.-]*\.(so|dylib)))',
        'mmcv._ext was built against another torch',
        Cures.fitting_mmcv,
    ),
    (r"No module named 'mmprompt'", 'not installed', Cures.mmprompt_itself),
    (
        r"No module named 'mmcv\._ext'",
        'this library itself imports compiled operators',
        Cures.fitting_mmcv,
    ),
    (r"No module named '(mmengine|mmcv|mmseg|mmdet)\b", 'missing', Cures.install_family),
    (r'is used but incompatible', 'versions that do not fit', Cures.install_family),
    (
        r"No module named 'pkg_resources'",
        'setuptools 81 removed what this library imports',
        lambda _: [pip("install 'setuptools<81'")],
    ),
    (r"No module named 'torch(vision)?'", 'missing', Cures.matching_torchvision),
    (
        r"No module named 'panopticapi'",
        "absent: fine, only mmdet's own panoptic metric asks for it",
        lambda _: [pip('install git+https://github.com/cocodataset/panopticapi.git')],
    ),
    (
        r"No module named 'open_clip'",
        'absent: fine, only SAM-CP with a CLIP asks for it',
        lambda _: [pip('install open_clip_torch')],
    ),
    (r'sctypes', 'imaug is too old for NumPy 2', lambda _: [pip("install 'imaug>=0.4.3'")]),
    (
        r'dtype size changed|compiled using NumPy 1|_ARRAY_API not found|Numpy is not available|'
        r'multiarray failed to import',
        'a package was built against another NumPy',
        Cures.matching_numpy,
    ),
    (
        r'torchvision::|custom C\+\+ ops|(?s:torchvision.*undefined symbol)',
        'torchvision was built against another torch',
        Cures.matching_torchvision,
    ),
    (
        r"lib(GL|gthread|SM|Xext|Xrender)\b.*\.so|No module named 'cv2'",
        'OpenCV is missing, or wants libraries of a graphical desktop',
        lambda _: [pip('install --force-reinstall --no-deps opencv-python-headless')],
    ),
)


class Doctor:
    """Gathers findings about the interpreter that runs it."""

    def __init__(self) -> None:
        self.cures = Cures()
        self.findings: list[Finding] = []

    def add(self, check: str, status: str, found: str, mend: list[str] | None = None) -> None:
        self.findings.append(Finding(check, status, found, mend or []))

    def examine(self) -> list[Finding]:
        """Run every probe, a few at a time, and return the findings in a fixed order."""
        self.python()
        self.which_family()
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            probes = dict(zip(PROBES, pool.map(run_probe, PROBES.values())))
        closer = {'torch': self.torch, 'mmcv._ext': self.compiled, 'setuptools': self.setuptools}
        causes: dict[str, str] = {}
        for name, probe in probes.items():
            if probe.answer is not None and name in closer:
                closer[name](probe.answer)
            elif probe.answer is not None:
                self.add(name, 'ok', probe.answer['version'])
            elif probe.error in causes:
                status = MILD.get(name, 'fail')
                self.add(name, status, f'for the same reason as {causes[probe.error]}')
            else:
                causes[probe.error] = name
                self.explain(name, probe)
        return self.findings

    def python(self) -> None:
        version, mend = '.'.join(map(str, sys.version_info[:3])), ['python3.11 -m venv .venv']
        if sys.version_info >= (3, 10):  # noqa: UP036 (it is here to be run by an older one)
            self.add('python', 'ok', version)
        else:
            self.add('python', 'fail', f'{version}, and mmprompt needs 3.10 or later', mend)

    def which_family(self) -> None:
        installed = self.cures.installed
        listed = ', '.join(f'{n} {v}' for names in installed.values() for n, v in names.items())
        if len(self.cures.held) == 2:
            found = f'both families at once, written into the same folders ({listed})'
            self.add('family', 'warn', found, self.cures.one_family())
        elif self.cures.held:
            self.add('family', 'ok', f'{self.cures.family} ({listed})')
        else:
            found = 'no OpenMMLab distribution is installed'
            self.add('family', 'warn', found, self.cures.install_family())

    def torch(self, answer: dict) -> None:
        version, build = answer['version'], answer['cuda_build']
        if re.match(r'(0|1|2\.0)\.', version):
            mend = [pip('install torch==2.12.1 torchvision==0.27.1')]
            self.add('torch', 'fail', f'{version}, and mmprompt needs 2.1 or later', mend)
        elif self.cures.family == 'official' and re.match(r'2\.([6-9]|\d\d)\.', version):
            mend = [pip('install torch==2.1.2 torchvision==0.16.2')]
            found = f'{version}, with which mmengine 0.10.7 cannot read most checkpoints'
            self.add('torch', 'warn', found, mend)
        else:
            self.add('torch', 'ok', version)
        if answer['cuda']:
            self.add('cuda', 'ok', f'{answer["device"]}, torch built for CUDA {build}')
        elif build and shutil.which('nvidia-smi'):
            found = f'a driver is there, but it is too old for this torch (built for CUDA {build})'
            mend = ['nvidia-smi  # then update it, or take a torch built for the CUDA it prints']
            self.add('cuda', 'warn', found, mend)
        else:
            self.add('cuda', 'note', 'no GPU to be seen: everything runs on the CPU')

    def setuptools(self, answer: dict) -> None:
        version = version_of('setuptools') or 'absent'
        if answer['pkg_resources'] or self.cures.family == 'onedl':
            self.add('setuptools', 'ok', version)
        else:
            found = f'{version}: no pkg_resources, which the official family imports'
            self.add('setuptools', 'fail', found, [pip("install 'setuptools<81'")])

    def compiled(self, answer: dict) -> None:
        if answer['version']:
            self.add('mmcv._ext', 'ok', 'loads')
        elif answer['files']:
            found = f'as good as absent: built for another Python ({", ".join(answer["files"])})'
            self.add('mmcv._ext', 'warn', found, self.cures.fitting_mmcv())
        else:
            needs = 'mmdet.models' if self.cures.family == 'onedl' else 'the official mmseg'
            found = f'absent: fine, mmprompt needs no compiled operator ({needs} does)'
            self.add('mmcv._ext', 'note', found)

    def explain(self, name: str, probe: Probe) -> None:
        """Add the finding for a probe that failed: the first rule that knows the error mends it."""
        status = MILD.get(name, 'fail')
        text = f'{name}: {probe.error}\n{probe.stderr}'
        for pattern, meaning, cure in RULES:
            if re.search(pattern, text):
                self.add(name, status, f'{meaning}: {probe.error}', cure(self.cures))
                return
        missing = re.search(r"No module named '(\w+)", text)
        package = missing[1] if missing else name
        how = 'install' if missing else 'install --force-reinstall --no-deps'
        mend = [pip(f'{how} {FAMILIES[self.cures.family].get(package, package)}')]
        if package == 'mmprompt':  # an error of its own: only the traceback says more
            mend = [f"{shlex.quote(sys.executable)} -c 'import mmprompt'"]
        elif package == 'mmcv._ext':
            mend = self.cures.fitting_mmcv()
        self.add(name, status, probe.error, mend)


def report(findings: list[Finding]) -> str:
    """Return the findings as text, one per line, each with its command below it."""
    lines = [f'mmprompt doctor on {sys.executable}', '']
    for finding in findings:
        mark = 'FAIL' if finding.status == 'fail' else finding.status
        lines.append(f'{mark:<5} {finding.check:<23} {finding.found}')
        lines += [f'{"":<29} mend: {command}' for command in finding.mend]
    broken = [finding.check for finding in findings if finding.status == 'fail']
    verdict = f'cannot work here yet: {", ".join(broken)}' if broken else 'can work here'
    return '\n'.join([*lines, '', f'mmprompt {verdict}'])


def main(argv: list[str] | None = None) -> int:
    """Print the report; return 0 if mmprompt can work in this environment, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog='mmprompt-doctor',
        description='Says what is wrong with this Python environment and which command mends it.',
    )
    parser.add_argument('--json', action='store_true', help='print the findings as JSON')
    args = parser.parse_args(argv)
    findings = Doctor().examine()
    works = all(finding.status != 'fail' for finding in findings)
    if args.json:
        whole = {'works': works, 'python': sys.executable, 'findings': list(map(asdict, findings))}
        print(json.dumps(whole, indent=2))
    else:
        print(report(findings))
    return 0 if works else 1


if __name__ == '__main__':
    sys.exit(main())
