"""Peak memory of SEEM with Focal-T on one image of 4000 x 5000 pixels, short side 512.

Each case runs in a process of its own, on random weights and a random image, and what is printed is
the most that process ever held (resident set), interpreter and weights included. The last case is
`tools/test.py` with the Mapillary config on a data set of one such image.

    python benchmarks/huge_image.py [CASE …] [--size 4000 5000] [--limit GB]

Linux and macOS.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    'semantic-19': dict(task='semantic', classes=19),
    'semantic-150': dict(task='semantic', classes=150),
    # Every query takes part: with random weights none would pass the published threshold.
    'panoptic': dict(task='panoptic', classes=133, score_threshold=0.0, overlap_threshold=0.0),
    'instance': dict(task='instance', classes=80),
}
TEST = 'test.py'
GB = 1e9


def segment(task: str, classes: int, size: list[int], **options) -> None:
    """Run one case in this process."""
    import torch
    from mmengine.config import Config

    from mmprompt.foundation.seem import SEEM

    torch.manual_seed(0)
    config = Config.fromfile(str(ROOT / 'configs/_base_/models/focal-t.py')).seem.to_dict()
    model = SEEM(**{**config, 'text_encoder': None}).eval()
    semantic = torch.nn.functional.normalize(torch.randn(classes + 1, 512), dim=1)
    semantic[-1] = 0  # "no object" never wins
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    things = range(classes // 2) if task == 'panoptic' else ()
    found = model.segment(image, task, semantic, things=things, short_side=512, **options)
    if task == 'panoptic':
        print(f'{len(found.ids)} segments', end=', ')
    if task == 'instance':
        print(f'{len(found.scores)} instances', end=', ')


def prepare_test(folder: Path, size: list[int]) -> None:
    """A random base and a Mapillary of one image."""
    import numpy as np
    import torch
    from mmengine.config import Config
    from PIL import Image

    from mmprompt.foundation.seem import SEEM
    from mmprompt.foundation.seem.checkpoint import save_base

    torch.manual_seed(0)
    config = Config.fromfile(str(ROOT / 'configs/_base_/models/focal-t.py')).seem.to_dict()
    save_base(folder / 'base.safetensors', SEEM(**config), config)
    random = np.random.default_rng(0)
    pictures = {
        'images/huge.jpg': random.integers(0, 256, (*size, 3), dtype=np.uint8),
        'v1.2/labels/huge.png': random.integers(0, 66, size, dtype=np.uint8),
    }
    for name, values in pictures.items():
        path = folder / 'data/mapillary/validation' / name
        path.parent.mkdir(parents=True)
        Image.fromarray(values).save(path)


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a case, which leaves nothing outside its folder."""
    own = dict(MMPROMPT_DATA=str(folder / 'data'), MMPROMPT_CACHE=str(folder / 'cache'))
    return {**os.environ, 'PYTHONPATH': str(ROOT), **own}


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """(GB, seconds, what was printed) of a process."""
    environment = surroundings(folder)
    start = time.perf_counter()
    with open(folder / 'log', 'w+') as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        text = log.read()
    if status:
        raise SystemExit(f'{" ".join(command)} failed:\n{text}')
    unit = 1 if sys.platform == 'darwin' else 1024
    return usage.ru_maxrss * unit / GB, time.perf_counter() - start, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('cases', nargs='*', metavar='CASE', help=f'{[*CASES, TEST]}; all if none')
    parser.add_argument('--size', nargs=2, type=int, default=[4000, 5000], metavar=('H', 'W'))
    parser.add_argument('--limit', type=float, default=6.0, help='GB; more than this is a failure')
    parser.add_argument('--inside', choices=[*CASES, 'prepare'], help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside == 'prepare':
        prepare_test(args.folder, args.size)
        return 0
    if args.inside:
        segment(**CASES[args.inside], size=args.size)
        return 0
    unknown = set(args.cases) - {*CASES, TEST}
    if unknown:
        parser.error(f'unknown cases {sorted(unknown)}; expected some of {[*CASES, TEST]}')
    worst = 0.0
    for case in args.cases or [*CASES, TEST]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            own = [sys.executable, __file__, '--size', *map(str, args.size), '--inside']
            command = [*own, case]
            if case == TEST:
                subprocess.run(
                    [*own, 'prepare', '--folder', name], check=True, env=surroundings(folder)
                )
                command = [sys.executable, 'tools/test.py']
                command += ['configs/seem/focal-t_mapillary_zero-shot.py', '--work-dir', name]
                command += ['--cfg-options', f'model.base={folder / "base.safetensors"}']
                # One process, so that nothing stays uncounted.
                command += ['test_dataloader.num_workers=0']
                command += ['test_dataloader.persistent_workers=False']
            peak, seconds, text = measured(command, folder)
            note = text.strip().rstrip(',') if case in ('panoptic', 'instance') else ''
        worst = max(worst, peak)
        print(f'{case:14} {peak:5.2f} GB {seconds:6.0f} s  {note}', flush=True)
    return int(worst > args.limit)


if __name__ == '__main__':
    sys.exit(main())
