"""The whole story in one command: make fog, learn prompts from sixteen images per class, compare.

Every step runs the command line that a user would type, and is skipped when its result is already
there and came from the same config, data and base; a second call only prints the table again.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mmprompt.apis.cli import find_config, run_command_line, tools_folder
from mmprompt.apis.figures import colour_labels, draw_scenes, draw_weights
from mmprompt.apis.inference.inferencer import Inferencer
from mmprompt.apis.markdown import aligned_grid
from mmprompt.common.checkpoint import read_metadata, resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.files import write_json
from mmprompt.common.prompt_file import PROMPT_FILE, PromptFile
from mmprompt.registry import DATASETS

CONFIG = 'configs/ssprompt/nano_streets-fog_{}.py'
METHODS = {
    'zero-shot': 'zero-shot',
    'SpaPrompt': '16shot_spaprompt',
    'SemPrompt': '16shot_semprompt',
    'SSPrompt': '16shot',
}
DATA = Path('data/streets/fog')
MANIFEST = DATA / '16shot_seed0.json'
SCENES = (3, 17, 29, 44)  # of the test images, for the figure


def _run(title: str, script: str, *arguments: str) -> float:
    """Run one of the command lines, its progress on screen; return the seconds it took."""
    print(f'\n== {title}\n   python tools/{script} {" ".join(arguments)}', flush=True)
    start = time.perf_counter()
    code = subprocess.call([sys.executable, str(tools_folder() / script), *arguments])
    if code:
        raise UserError(f'tools/{script} stopped with exit status {code}; its message is above.')
    return time.perf_counter() - start


def make_data() -> None:
    """Streets in fog and the manifest of the 16-shot set; what is complete is reused."""
    for split, number in (('train', 160), ('val', 60), ('test', 60)):
        _run(
            f'{number} foggy scenes ({split})', 'make_streets.py', '--out', str(DATA),
            '--split', split, '--num', str(number), '--condition', 'fog', '--seed', '0',
        )  # fmt: skip
    if not MANIFEST.is_file():
        _run('16 images of each class', 'make_few_shot_split.py', CONFIG.format('16shot'))


def origin(name: str) -> str:
    """Hash of all that a method's result depends on: config, few-shot set and data, base."""
    cfg = find_config(CONFIG.format(METHODS[name]))
    parts = [
        json.dumps(cfg.to_dict(), sort_keys=True, default=str),
        MANIFEST.read_text(),
        (DATA / 'streets.json').read_text(),
        read_metadata(resolve_weights(cfg.model.base))['fingerprint'],
    ]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def run_method(name: str, folder: Path) -> dict:
    """Train (unless zero-shot) and test one method, or read its earlier result.

    An interrupted training is continued. A folder of another origin is cleared.

    Returns:
        origin; mIoU in per cent, trainable parameters, size of the prompt file in bytes, and the
        seconds of the training command from start to end (None for zero-shot).
    """
    record, source = folder / 'result.json', folder / 'origin.json'
    now = origin(name)
    if folder.exists() and not (source.is_file() and json.loads(source.read_text()) == now):
        shutil.rmtree(folder)
    if record.is_file():
        return json.loads(record.read_text())
    write_json(source, now)
    config = CONFIG.format(METHODS[name])
    prompt, metrics = folder / PROMPT_FILE, folder / 'metrics.json'
    weights: list[str] = []
    parameters, size, seconds = 0, 0, None
    if name != 'zero-shot':
        seconds = _run(f'train {name}', 'train.py', config, '--work-dir', str(folder), '--resume')
        parameters = sum(t.numel() for t in PromptFile.load(prompt).tensors.values())
        size = prompt.stat().st_size
        weights = [str(prompt)]
    _run(
        f'test {name}', 'test.py', config, *weights,
        '--work-dir', str(folder / 'test'), '--out', str(metrics),
    )  # fmt: skip
    miou = json.loads(metrics.read_text())['metrics']['mIoU']
    result = dict(origin=now, miou=miou, parameters=parameters, bytes=size, seconds=seconds)
    write_json(record, result)
    return result


def format_table(results: dict[str, dict]) -> str:
    """Results as a Markdown table, aligned for the terminal too."""
    heads, rows = ('method', 'mIoU', 'trained parameters', 'prompt file', 'training'), []
    for name, result in results.items():
        size = f'{result["bytes"] / 1024:.0f} KiB' if result['bytes'] else '-'
        seconds = '-' if result['seconds'] is None else f'{result["seconds"]:.0f} s'
        rows.append((name, f'{result["miou"]:.2f}', f'{result["parameters"]:,}', size, seconds))
    return aligned_grid(heads, rows)


def draw(folder: Path, origins: list[str]) -> list[Path]:
    """The two figures: four scenes, and what each class's prompt took from training."""
    figures = [folder / 'scenes.png', folder / 'weights.png']
    drawn = folder / 'figures.json'
    if drawn.is_file() and json.loads(drawn.read_text()) == origins:
        return figures
    prompt = folder / 'ssprompt' / PROMPT_FILE
    models = {
        'zero-shot': Inferencer(CONFIG.format('zero-shot')),
        'SSPrompt': Inferencer(CONFIG.format('16shot'), prompt),
    }
    dataset = DATASETS.build(find_config(CONFIG.format('16shot')).test_dataloader.dataset)
    draw_scenes([_scene(dataset, index, models) for index in SCENES], figures[0])
    learned = models['SSPrompt'].model.decode_head.semantic_prompt.weight()
    draw_weights(models['SSPrompt'].model.classes, learned.detach().numpy(), figures[1])
    write_json(drawn, origins)
    return figures


def _scene(dataset, index: int, models: dict[str, Inferencer]) -> dict[str, np.ndarray]:
    """Image, truth and predictions of one test image, each as an RGB picture."""
    item = dataset[index]
    truth = item['data_samples'].gt_sem_seg.data[0].numpy()
    palette = dataset.metainfo['palette']
    picture = {
        'image': item['inputs'].flip(0).permute(1, 2, 0).numpy(),
        'truth': colour_labels(truth, palette),
    }
    for name, segment in models.items():
        labels = segment(item['data_samples'].img_path).pred_sem_seg.data[0].numpy()
        picture[name] = colour_labels(np.where(truth == 255, 255, labels), palette)
    return picture


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='demo.py', description='Learn prompts for foggy streets from 16 images per class.'
    )
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for the results')
    args = parser.parse_args(argv)

    def body() -> None:
        start = time.perf_counter()
        folder = Path(args.work_dir)
        make_data()
        results = {name: run_method(name, folder / name.lower()) for name in METHODS}
        figures = draw(folder, [result['origin'] for result in results.values()])
        table = format_table(results)
        (folder / 'table.md').write_text(table + '\n')
        print(f'\nFoggy streets, 16 images per class, 60 test scenes:\n\n{table}\n')
        for path in figures:
            print(f'picture: {path}')
        print(f'learned prompt: {folder / "ssprompt" / PROMPT_FILE}')
        print(f'{time.perf_counter() - start:.0f} s in all')

    return run_command_line(body)
