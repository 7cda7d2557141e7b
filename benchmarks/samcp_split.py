"""Table 11: what an image costs, the making of its patches and the rest, on images of a config.

*making patches* is from RGB values to patches, *the rest* from the file of the image and its stored
patches to all three results. Both are of the same images, in one process, in turns.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from comparison import processor  # beside this file
from measure import Worker
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from mmprompt.apis.cli import OptionsAction, apply_options, find_config
from mmprompt.apis.csv_rows import put_row
from mmprompt.apis.images import read_picture
from mmprompt.apis.patches.generate import build_generator
from mmprompt.apis.patches.images import images_of_config
from mmprompt.apis.pipelines import PATCHES, step_name, steps_of, without_truth
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.prompt_file import PromptFile
from mmprompt.registry import MODELS

PARTS = ('making', 'rest')
HEADER = (
    'config', 'label', 'generator', 'machine', 'images', 'pixels', 'patches', 'patches (s)',
    'the rest (s)', 'total (s)', '% patches',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the other parts do not know."""
    add = parser.add_argument_group('split').add_argument
    add('--config', default='samcp/samcp_nano_streets', help='whose test images and model')
    add('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    add('--generator', nargs='+', default=['felzenszwalb'], metavar='NAME')
    add('--generator-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
        help='of all of them, such as weights=FILE points_per_side=16')  # fmt: skip
    add('--label', metavar='NAME',
        help='of the row, for one of several settings of a generator (its name)')  # fmt: skip
    add('--images', type=int, default=5, help='evenly chosen (5)')
    add('--head', metavar='FILE', help='head.safetensors; without it the head is random')


def inference_steps(cfg: Config, store: Path) -> list[dict]:
    """The test pipeline without truth, on other patches."""
    steps = (dict(step) for step in without_truth(steps_of(cfg.test_dataloader)))
    return [step | dict(store=str(store)) if step_name(step) == PATCHES else step for step in steps]


def build_split(name: str, options: argparse.Namespace):
    """({'patches': mean, 'pixels': ...}, {'making': call, 'rest': call}) of one generator."""
    cfg = find_config(options.config)
    apply_options(cfg, options.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmprompt')
    found = images_of_config(cfg, 'test')
    rows = np.linspace(0, len(found) - 1, min(options.images, len(found))).round().astype(int)
    images = [found[row] for row in rows]
    own = dict(options.generator_options or {})
    if name != 'felzenszwalb':
        own.setdefault('device', options.device)
    generator = build_generator(name, own)
    pictures = [read_picture(image.path) for image in images]
    folder = tempfile.TemporaryDirectory(prefix='samcp-')
    store, number = Path(folder.name) / 'split.db', 0
    with PatchStoreWriter(store, dict(generator=name, settings={})) as writer:
        for image, picture in zip(images, pictures):
            patches = generator(picture)
            number += len(patches)
            writer.add(image.key, patches)
        writer.finish()
    # Maps that are kept would not be computed.
    model = MODELS.build({**cfg.model, 'feature_cache': None})
    model.load_base()
    if options.head:
        model.load_prompt(PromptFile.load(options.head, kinds=('head',)))
    model = model.to(options.device).eval()
    pipeline = Compose(inference_steps(cfg, store))

    def making() -> None:
        for picture in pictures:
            generator(picture)

    def rest(kept=folder) -> None:  # the folder stays until the process ends
        for image in images:
            sample = pipeline(dict(img_path=str(image.path), seg_fields=[]))
            model.test_step(pseudo_collate([sample]))

    height, width = np.mean([picture.shape[:2] for picture in pictures], axis=0).round().astype(int)
    facts = dict(images=len(images), pixels=f'{height}x{width}', patches=number / len(images))
    return facts, dict(making=making, rest=rest)


def split_rows(options: argparse.Namespace, medians) -> list[tuple]:
    """A row per generator.

    Args:
        options: of the command line.
        medians: (workers, parts, options) -> seconds by worker and part.

    Raises:
        UserError: one label for several generators.
    """
    if options.label and len(options.generator) > 1:
        raise UserError(
            f'--label: expected one generator with it, found {" ".join(options.generator)}. Run '
            f'the others by themselves.'
        )
    rows = []
    config = Path(options.config).stem
    threads = f', {options.threads} threads' if options.threads else ''
    machine = f'{processor(options.device)}{threads}'.replace(',', ';')
    for name in options.generator:
        worker = Worker(build_split, (name, options), options.device, options.threads)
        try:
            for part in PARTS:
                worker.run(part)  # chooses algorithms
            seconds = medians({name: worker}, PARTS, options)
        finally:
            worker.__exit__()
        facts = worker.parameters
        making, rest = (seconds[name, part] / facts['images'] for part in PARTS)
        rows.append((
            config, options.label or name, name, machine, str(facts['images']), facts['pixels'],
            f'{facts["patches"]:.0f}', f'{making:.3f}', f'{rest:.3f}', f'{making + rest:.3f}',
            f'{100 * making / (making + rest):.0f}',
        ))  # fmt: skip
    return rows


def keep(rows: list[tuple], path: Path) -> None:
    """Put rows into a CSV file, in place of those of the same config and label."""
    for row in rows:
        named = dict(zip(HEADER, row, strict=True))
        put_row(path, HEADER, named, _key)


def _key(row: dict) -> tuple[str, str]:
    return row['config'], row['label']
