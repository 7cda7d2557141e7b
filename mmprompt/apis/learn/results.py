"""The table and the pictures of `tools/learn.py`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmprompt.apis.csv_rows import write_csv
from mmprompt.apis.figures import colour_labels, draw_scenes, draw_weights
from mmprompt.apis.images import read_picture
from mmprompt.apis.inference.inferencer import Inferencer
from mmprompt.apis.learn import spm
from mmprompt.apis.learn.config import METHODS
from mmprompt.apis.markdown import aligned_grid
from mmprompt.apis.pictures.interim import picture_interim
from mmprompt.common.files import atomic_file, write_json
from mmprompt.common.prompt_file import PROMPT_FILE
from mmprompt.datasets.folder import mask_name

ROWS = 4  # scenes of one picture
WIDEST = 640  # pixels of a scene's longer side in a picture


def write_table(results: Sequence[Mapping], manifest: Mapping, out: Path) -> str:
    """Write ``table.md`` and ``table.csv``: IoU of each class in per cent, mean, cost.

    Args:
        results: of `learn.run_method`.
        manifest: of `learn.prepare`.
        out: the folder of the results.

    Returns:
        The Markdown.
    """
    counts = manifest['images_per_class']['test']
    rows = [('class', 'test images', *(METHODS[r['method']] for r in results))]
    for name, number in counts.items():
        values = [r['metrics'].get(f'IoU.{name}') for r in results]
        rows.append((name, str(number), *('-' if v is None else f'{v:.2f}' for v in values)))
    total = str(len(manifest['parts']['test']))
    rows.append(('mIoU', total, *(f'{r["metrics"]["mIoU"]:.2f}' for r in results)))
    rows.append(('parameters', '', *(f'{r["parameters"]:,}' for r in results)))
    sizes = [f'{r["bytes"] / 1024:.0f} KiB' if r['bytes'] else '-' for r in results]
    rows.append(('prompt file', '', *sizes))
    times = ['-' if r['seconds'] is None else f'{r["seconds"]:.0f} s' for r in results]
    rows.append(('training', '', *times))
    write_csv(out / 'table.csv', rows[0], [dict(zip(rows[0], row)) for row in rows[1:]])
    markdown = aligned_grid(rows[0], rows[1:])
    with atomic_file(out / 'table.md') as stream:
        stream.write(f'{markdown}\n'.encode())
    return markdown


def draw_pictures(
    out: Path, methods: Sequence[str], names: Sequence[str], images: Path, number: int
) -> list[Path]:
    """Draw test images beside truth, zero-shot and what was learned, and SSPrompt's weights.

    Args:
        out: the folder of the results, where ``pictures`` is made.
        methods: those that were run; zero-shot and SSPrompt, or head tuning and SPM with its
            interim maps, are shown, or the last instead of it.
        names: the test images.
        images: their folder.
        number: how many, spread evenly over the list.

    Returns:
        The files.
    """
    learned = next((m for m in ('ssprompt', 'spm') if m in methods), methods[-1])
    shown = [m for m in dict.fromkeys(('zero-shot', 'head', learned)) if m in methods]
    places = np.unique(np.linspace(0, len(names) - 1, min(number, len(names))).round().astype(int))
    chosen = [names[i] for i in places] if number else []
    folder, asked = out / 'pictures', dict(methods=shown, images=chosen)
    made = [folder / f'scenes_{i // ROWS + 1}.png' for i in range(0, len(chosen), ROWS)]
    made += [folder / 'legend.png'] if chosen else []
    made += [folder / 'weights.png'] if 'ssprompt' in shown else []
    made += [folder / 'interim_spm.png'] if 'spm' in shown and chosen else []
    note = folder / 'pictures.json'
    if not made or (note.is_file() and json.loads(note.read_text()) == asked):
        return made
    models = {
        METHODS[m]: Inferencer(
            out / 'configs' / f'{m}.py',
            None if m == 'zero-shot' else out / m / spm.files_of(m)[0],
        )
        for m in shown
    }
    for i in range(0, len(chosen), ROWS):
        scenes = [_scene(name, out, images, models) for name in chosen[i : i + ROWS]]
        draw_scenes(scenes, folder / f'scenes_{i // ROWS + 1}.png')
    if chosen:
        meta = models[METHODS[shown[0]]].config.test_dataloader.dataset.metainfo
        _draw_legend(meta.classes, meta.palette, folder / 'legend.png')
    if 'ssprompt' in shown:
        model = models[METHODS['ssprompt']].model
        weights = model.decode_head.semantic_prompt.weight().detach().numpy()
        draw_weights(model.classes, weights, folder / 'weights.png')
    if 'spm' in shown and chosen:
        config = models[METHODS['spm']].config
        data, prompt = config.test_dataloader.dataset, out / 'spm' / PROMPT_FILE
        picture_interim('spm', config, data, prompt, folder, number, 'cpu', WIDEST)
    write_json(note, asked)
    return made


def _draw_legend(classes: Sequence[str], palette: Sequence, path: Path) -> None:
    """A box in the colour of each class, and its name; black is what the truth leaves open."""
    names = [*classes, '(ignored)']
    image = Image.new('RGB', (40 + 8 * max(map(len, names)), 20 * len(names)), 'white')
    pen = ImageDraw.Draw(image)
    for i, (name, colour) in enumerate(zip(names, [*palette, (0, 0, 0)])):
        pen.rectangle((4, 20 * i + 3, 24, 20 * i + 16), fill=tuple(colour))
        pen.text((32, 20 * i + 4), name, fill='black')
    with atomic_file(path) as stream:
        image.save(stream, 'PNG')


def _scene(name: str, out: Path, images: Path, models: Mapping) -> dict[str, np.ndarray]:
    picture, truth = read_picture(images / name), Image.open(out / 'labels' / mask_name(name))
    truth = np.asarray(truth)
    step = max(1, -(-max(truth.shape) // WIDEST))
    scene = {'image': picture[::step, ::step]}
    for title, segment in models.items():
        palette = segment.config.test_dataloader.dataset.metainfo.palette
        scene.setdefault('truth', colour_labels(truth, palette)[::step, ::step])
        labels = segment(str(images / name)).pred_sem_seg.data[0].cpu().numpy()
        scene[title] = colour_labels(labels, palette)[::step, ::step]
    return scene
