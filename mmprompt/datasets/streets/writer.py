"""Write scenes in the folders and encodings of Cityscapes, all or nothing."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from mmprompt.common.errors import UserError
from mmprompt.datasets.streets import conditions, render
from mmprompt.datasets.streets.scene import build, scene_random, seeded

# every file that has a say in a pixel or a label
SOURCES = (
    'canvas.py',
    'classes.py',
    'conditions.py',
    'frontage.py',
    'palette.py',
    'people.py',
    'props.py',
    'render.py',
    'scene.py',
    'textures.py',
    'traffic.py',
    'vehicles.py',
)
RECORD = 'streets.json'
KINDS = ('leftImg8bit', 'gtFine')
# folder and suffix of the three files of a scene, in the order of `sample`
FILES = (
    ('leftImg8bit', '_leftImg8bit.png'),
    ('gtFine', '_gtFine_labelTrainIds.png'),
    ('gtFine', '_gtFine_instanceIds.png'),
)
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def generator_hash() -> str:
    """sha256 over names and bytes of the generator's source files, line ends normalised."""
    digest, folder = hashlib.sha256(), Path(__file__).parent
    for name in SOURCES:
        digest.update(name.encode() + b'\0' + (folder / name).read_bytes().replace(b'\r\n', b'\n'))
    return digest.hexdigest()


def sample(seed: int, split: str, index: int, condition: str = 'clear', size=(256, 512)):
    """One image with its labels.

    Args:
        seed, split, index: which scene; the same three give the same scene for ever.
        condition: one of `conditions.CONDITIONS`; changes the image alone.
        size: height and width in pixels.

    Returns:
        image (H, W, 3) uint8 BGR, labels (H, W) uint8 trainIds, instances (H, W) uint16.
    """
    scene = build(scene_random(seed, split, index), size)
    surfaces = render.buffers(scene, np.random.default_rng(seeded(seed, split, index, 'surface')))
    rng = np.random.default_rng(seeded(seed, split, index, 'weather-' + condition))
    image = conditions.apply(condition, surfaces, rng)
    return (image, *render.labels(scene))


def settings(seed: int, condition: str, size) -> dict:
    """What all splits of one folder share."""
    from mmprompt import __version__  # the package imports this module, so not at the top

    return {
        'dataset': 'Streets',
        'condition': condition,
        'seed': seed,
        'size': list(size),
        'generator': generator_hash(),
        'version': __version__,
    }


def _check(seed, split, num, condition, size) -> None:
    if condition not in conditions.CONDITIONS:
        raise UserError(
            f'--condition: expected one of {", ".join(conditions.CONDITIONS)}, found {condition!r}.'
        )
    if num < 1 or seed < 0:
        raise UserError(f'--num must be at least 1 and --seed at least 0, found {num} and {seed}.')
    if not (split and split.replace('-', '').replace('_', '').isalnum() and split.isascii()):
        raise UserError(
            f'--split: expected a plain folder name such as train or val, found {split!r}.'
        )
    if len(size) != 2 or not all(64 <= n <= 2048 for n in size):
        raise UserError(
            f'--size: expected HEIGHTxWIDTH, both from 64 to 2048 pixels, found '
            f'{"x".join(map(str, size))}.'
        )


def _read(path: Path) -> dict | None:
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        splits = record['splits']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: expected the record of a Streets folder, found something '
            f'unreadable ({error}). Delete the folder or choose another --out.'
        ) from error
    if not isinstance(splits, dict):
        raise UserError(
            f'{path}: expected "splits" to map names to numbers, found {splits!r}. '
            f'Delete the folder or choose another --out.'
        )
    return record


def _reusable(out: Path, split: str, num: int, wanted: dict) -> bool:
    """True if the split is there as wanted, False if it may be written, else an error."""
    record = _read(out / RECORD)
    if record is not None:
        for key in ('dataset', 'condition', 'seed', 'size', 'generator'):
            if record.get(key) != wanted[key]:
                raise UserError(
                    f'{out / RECORD}: expected {key} {wanted[key]!r}, found {record.get(key)!r}, '
                    f'so this folder holds another dataset. Choose another --out or delete it.'
                )
        held = record['splits'].get(split)
        if held is not None:
            if held != num:
                raise UserError(
                    f'{out / RECORD}: expected {num} images in split {split!r}, found '
                    f'{held}. Choose another --out or delete the folder.'
                )
            _complete(out, split, num)
            return True
    for kind in KINDS:
        if (out / kind / split).exists():
            raise UserError(
                f'{out / kind / split} exists but {RECORD} does not record it: '
                f'expected a new split. Delete that folder or choose another --out.'
            )
    return False


def _complete(out: Path, split: str, num: int) -> None:
    for kind, suffix in FILES:
        found = sum(1 for _ in (out / kind / split).glob('*/*' + suffix))
        if found != num:
            raise UserError(
                f'{out / kind / split}: expected {num} files *{suffix} as recorded in '
                f'{RECORD}, found {found}. Delete {out} and run again.'
            )


def _write(path: Path, array) -> None:
    if not cv2.imwrite(str(path), array, PNG):
        raise UserError(f'{path}: expected to write a PNG, but it failed. Is the disk full?')


def _write_sample(folder: Path, city: str, stem: str, arrays) -> None:
    for (kind, suffix), array in zip(FILES, arrays):
        _write(folder / kind / city / (stem + suffix), array)


def _publish(work: Path, out: Path, split: str, num: int, wanted: dict) -> None:
    """Move a finished split from its hidden folder to its place, then record it."""
    for kind in KINDS:
        (out / kind).mkdir(exist_ok=True)
        (work / kind).rename(out / kind / split)
    record = _read(out / RECORD) or {**wanted, 'splits': {}}
    record['splits'][split] = num
    draft = work / RECORD
    draft.write_text(json.dumps(record, indent=2) + '\n')
    draft.replace(out / RECORD)


def generate(
    out,
    split: str,
    num: int,
    condition: str = 'clear',
    seed: int = 0,
    size=(256, 512),
    progress=None,
) -> bool:
    """Write one split of one condition below ``out``.

    A folder holds one condition, seed, size and generator, and any number of splits. The images
    are written to a hidden folder that is renamed when complete, then `streets.json`.

    Args:
        out: dataset root.
        progress: called with the number of images done, if given.

    Returns:
        False if an identical split was there already and nothing was written.

    Raises:
        UserError: bad arguments, or ``out`` holds something else.
    """
    size = tuple(size)
    _check(seed, split, num, condition, size)
    out, wanted = Path(out), settings(seed, condition, size)
    fresh = not out.exists()
    if out.exists() and not out.is_dir():
        raise UserError(f'--out {out}: expected a folder, found a file. Choose another path.')
    if _reusable(out, split, num, wanted):
        return False
    city, work = f'streets-{condition}', out / f'.unfinished-{split}-{os.getpid()}'
    try:
        for kind in KINDS:
            (work / kind / city).mkdir(parents=True)
        for index in range(num):
            stem = f'{city}_{index:06d}_000000'
            _write_sample(work, city, stem, sample(seed, split, index, condition, size))
            if progress:
                progress(index + 1)
        _publish(work, out, split, num, wanted)
    except OSError as error:
        raise UserError(
            f'--out {out}: cannot be written ({error}). Choose a writable folder with enough space.'
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if fresh and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    return True
