"""``tools/pictures.py``: what finished runs have to show, as pictures."""

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmprompt.apis.bases import is_samcp, is_spm
from mmprompt.apis.cli import run_command_line
from mmprompt.apis.csv_rows import read_csv
from mmprompt.apis.figures import colour_labels, draw_curve, draw_scenes, draw_weights, shrink
from mmprompt.apis.images import read_picture
from mmprompt.apis.inference.inferencer import ZERO_SHOT, Inferencer
from mmprompt.apis.pictures.interim import picture_interim
from mmprompt.apis.pictures.samcp import picture_merging
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.common.prompt_file import HEAD_FILE, PROMPT_FILE, PromptFile
from mmprompt.datasets.checks import build_dataset
from mmprompt.methods.ssprompt.prompt_sets import class_weights

METRICS = ('mIoU', 'PQ', 'AP')
WIDEST = 640  # pixels of a scene's longer side in a picture
EPILOG = """\
Written to OUT:

  scenes.png         test images: image, truth, the frozen model, and a column per run
  interim_RUN.png    of a run of SPM: image, truth, the interim map before each place that is
                     prompted (colours mixed by probability), and the result
  merged_RUN.png     of a run of SAM-CP: image, patches, truth, and the three results
  tsne_RUN.png       features of its patches in two dimensions, before and after the patch encoder,
                     coloured by true class and by true instance
  weights_RUN.png    w and 1 - w of each class: w multiplies the learned embedding, 1 - w that of
                     the class name (Eq. 6). With --counts, how often each name was counted, below.
  weights.csv        the same numbers: run, class, w, 1-w, count
  shots.png          the metric over the images per class, from runs of several shots or from the
                     CSV files of tools/reproduce.py
"""


@dataclass
class Run:
    """A finished training.

    Attributes:
        name: of its folder.
        config: that it ran with.
        prompt: what it learned.
    """

    name: str
    folder: Path
    config: Config
    prompt: PromptFile

    @classmethod
    def read(cls, folder: Path) -> 'Run':
        """From a work directory.

        Raises:
            UserError: there is no config or no prompt file in it.
        """
        configs = sorted(folder.glob('*.py'))
        config = Config.fromfile(str(configs[0])) if len(configs) == 1 else Config()
        path = folder / (HEAD_FILE if is_samcp(config) else PROMPT_FILE)
        if len(configs) != 1 or not path.is_file():
            raise UserError(
                f'{folder}: expected the work directory of a finished training, with its config '
                f'and {path.name}, found {len(configs)} configs and '
                f'{"one" if path.is_file() else "no"} such file. Train with tools/train.py, or '
                f'correct the path.'
            )
        prompt = PromptFile.load(path, kinds=('prompt', 'head'))
        return cls(folder.resolve().name, folder, config, prompt)

    @property
    def shots(self) -> int:
        """Images per class that it learned from; 0 if it does not say."""
        return int(_inside(self.config.train_dataloader.dataset, 'k').get('k') or 0)

    def metric(self) -> tuple[str, float] | None:
        """Name and value in per cent: that of tools/test.py, or else the last validation's."""
        found: dict = {}
        for scalars in sorted(self.folder.glob('*/vis_data/scalars.json')):
            for line in scalars.read_text().splitlines():
                found.update(json.loads(line))
        if (self.folder / 'metrics.json').is_file():
            found = json.loads((self.folder / 'metrics.json').read_text())['metrics']
        return next(((name, float(found[name])) for name in METRICS if name in found), None)


def _inside(dataset: ConfigDict, key: str) -> ConfigDict:
    """The dataset, or the one inside its wrappers, that is given an argument `key`."""
    while key not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


Lines = dict[str, dict[int, list[float]]]


def read_counts(path: Path) -> dict[str, float]:
    """Counts by class name from JSON ``{"road": 12}`` or CSV with ``name,count`` per line.

    Raises:
        UserError: it cannot be read so.
    """
    try:
        text = path.read_text()
        if path.suffix.lower() == '.json':
            return {str(name): float(count) for name, count in json.loads(text).items()}
        rows = [row for row in csv.reader(text.splitlines()) if row]
        if rows and not _is_number(rows[0][1]):
            rows = rows[1:]  # a heading
        return {row[0].strip(): float(row[1]) for row in rows}
    except (OSError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise UserError(
            f'{path}: expected counts by class name, JSON {{"road": 12, …}} or lines "road,12", '
            f'found something else ({error}). Correct the file.'
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def picture_weights(runs: Sequence[Run], out: Path, counts: Path | None) -> list[Path]:
    """Draw the weights of each run that learned some; write ``weights.csv``.

    Raises:
        UserError: the counts lack a class.
    """
    numbers = None if counts is None else read_counts(counts)
    rows, drawn = [('run', 'class', 'w', '1-w', 'count')], []
    for run in runs:
        found = class_weights(run.prompt)
        if found is None:
            continue
        weights, classes = found.numpy(), run.prompt.classes
        missing = [name for name in classes if numbers is not None and name not in numbers]
        if missing:
            raise UserError(
                f'{counts}: expected a count for each of the {len(classes)} classes of {run.name}, '
                f'found none for {", ".join(map(repr, missing[:5]))}. Add them.'
            )
        own = None if numbers is None else [numbers[name] for name in classes]
        drawn.append(out / f'weights_{run.name}.png')
        draw_weights(classes, weights, drawn[-1], own)
        for place, (name, w) in enumerate(zip(classes, weights)):
            count = '' if own is None else f'{own[place]:g}'
            rows.append((run.name, name, f'{w:.6f}', f'{1 - w:.6f}', count))
    if drawn:
        with atomic_file(out / 'weights.csv') as stream:
            stream.write(''.join(','.join(_quoted(c) for c in row) + '\n' for row in rows).encode())
        drawn.append(out / 'weights.csv')
    return drawn


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell


def picture_scenes(runs: Sequence[Run], out: Path, count: int, device: str) -> list[Path]:
    """Draw test images of the first run's data under every run's prompt.

    Raises:
        UserError: the runs have different bases or classes, or the test data are not there.
    """
    first = runs[0]
    for run in runs[1:]:
        for what in ('base_fingerprint', 'classes'):
            if getattr(run.prompt, what) != getattr(first.prompt, what):
                raise UserError(
                    f'{run.folder}: expected the base and the classes of {first.folder}, since the '
                    f'same images stand side by side, found another {what}. Draw them apart.'
                )
    init_default_scope(first.config.get('default_scope', 'mmprompt'))
    config = _inside(first.config.test_dataloader.dataset, 'pipeline')
    dataset = build_dataset(config)
    text = first.prompt.recipe.get('text') or {}
    segment = Inferencer(
        first.config.model.base,
        device=device,
        prompts={run.name: run.prompt for run in runs},
        texts={ZERO_SHOT: text.get('texts') or first.prompt.classes},
        templates=text.get('templates'),
        short_side=_short_side(config.get('pipeline') or ()),
    )
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    names = [ZERO_SHOT, *(run.name for run in runs)]
    scenes = [_scene(dataset, int(index), segment, names) for index in indices]
    draw_scenes(scenes, out / 'scenes.png')
    return [out / 'scenes.png']


def _short_side(pipeline: Sequence[Mapping]) -> int | None:
    for step in pipeline:
        if str(step['type']).endswith('Resize') and step.get('scale'):
            return int(min(step['scale']))
    return None


def _scene(dataset, index: int, segment: Inferencer, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Image, truth and predictions of one test image, all RGB pictures of one size."""
    sample, palette = dataset[index]['data_samples'], dataset.metainfo['palette']
    picture = read_picture(sample.img_path)
    truth = sample.gt_sem_seg.data[0].numpy()
    found = segment(picture)
    columns = dict(image=picture, truth=colour_labels(truth, palette))
    for name in names:
        labels = found[name].label_map
        if labels.shape == truth.shape:
            labels = np.where(truth == 255, 255, labels)
        columns[name] = colour_labels(labels, palette)
    return shrink(columns, WIDEST)


def lines_of_runs(runs: Sequence[Run]) -> dict[str, Lines]:
    """Values by metric, method and shots."""
    found: dict[str, Lines] = {}
    for run in runs:
        metric = run.metric()
        if metric is not None and run.shots:
            lines = found.setdefault(metric[0], {}).setdefault(run.prompt.method, {})
            lines.setdefault(run.shots, []).append(metric[1])
    return found


def lines_of_table(path: Path) -> dict[str, Lines]:
    """Values by data set with metric, method and shots, from a CSV with those columns.

    Raises:
        UserError: it has no columns method and shots, or no metric.
    """
    rows = read_csv(path, (), others=True)
    known = {column.lower(): column for column in (rows[0] if rows else {})}
    metrics = [name for name in METRICS if name.lower() in known]
    if not {'method', 'shots'} <= set(known) or not metrics:
        raise UserError(
            f'{path}: expected rows with method, shots and one of {", ".join(METRICS)}, found '
            f'{", ".join(known) or "no rows"}. Give a CSV file of tools/reproduce.py.'
        )
    found: dict[str, Lines] = {}
    for row in rows:
        for metric in metrics:
            value = row[known[metric.lower()]]
            if value:
                place = ' '.join(row[known[k]] for k in ('base', 'data', 'task') if k in known)
                lines = found.setdefault(f'{place} {metric}'.strip(), {})
                # Trainings of another recipe are another line.
                recipe = row[known['recipe']] if 'recipe' in known else '-'
                name = row[known['method']] + ('' if recipe == '-' else f', {recipe}')
                shots = lines.setdefault(name, {})
                shots.setdefault(int(row[known['shots']]), []).append(float(value))
    return found


def merged_lines(several: Iterable[Mapping[str, Lines]]) -> dict[str, Lines]:
    """All values of equal titles, methods and shots together."""
    found: dict[str, Lines] = {}
    for lines_by_title in several:
        for title, lines in lines_by_title.items():
            for method, shots in lines.items():
                line = found.setdefault(title, {}).setdefault(method, {})
                for number, values in shots.items():
                    line.setdefault(number, []).extend(values)
    return found


def picture_shots(found: Mapping[str, Lines], out: Path) -> list[Path]:
    """Draw each metric of which some method has runs of at least two numbers of shots."""
    drawn = []
    for title, lines in found.items():
        shown = {m: v for m, v in lines.items() if set(v) == {0} or len(set(v) - {0}) > 1}
        if any(set(values) != {0} for values in shown.values()):
            name = '-'.join(['shots', *title.replace('/', '-').split()])
            drawn.append(out / (f'{name}.png' if len(found) > 1 else 'shots.png'))
            draw_curve(shown, f'{title} (%)', drawn[-1])
    return drawn


def pictures(
    paths: Sequence[str], out: Path, counts: Path | None, count: int, device: str
) -> list[Path]:
    """Draw what work directories and CSV files have to show; returns the files.

    Raises:
        UserError: one of them cannot be used, or there is nothing to draw.
    """
    tables = [Path(p) for p in paths if Path(p).suffix.lower() == '.csv']
    for table in tables:
        if not table.is_file():
            raise UserError(f'{table}: expected a CSV file, found no such file. Correct the path.')
    runs = [Run.read(Path(p)) for p in paths if Path(p).suffix.lower() != '.csv']
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:  # of several places: their folders tell them apart
            run.name = f'{run.folder.resolve().parent.name}_{run.name}'
    found = merged_lines([lines_of_runs(runs), *map(lines_of_table, tables)])
    drawn = picture_weights(runs, out, counts)
    drawn += picture_shots(found, out)
    others = [run for run in runs if not (is_spm(run.config) or is_samcp(run.config))]
    for run in runs if count else ():
        if run in others:
            continue
        init_default_scope(run.config.get('default_scope', 'mmprompt'))
        data = _inside(run.config.test_dataloader.dataset, 'pipeline')
        draw = picture_merging if is_samcp(run.config) else picture_interim
        drawn += draw(run.name, run.config, data, run.prompt.path, out, count, device, WIDEST)
    if others and count:
        drawn += picture_scenes(others, out, count, device)
    if not drawn:
        raise UserError(
            f'{", ".join(paths)}: expected learned weights, test images, or runs of several shots, '
            f'found nothing to draw. Give more runs.'
        )
    return drawn


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='pictures.py',
        description='Draw scenes, interim maps, learned weights and curves of finished runs.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('runs', nargs='+', metavar='RUN', help='work directory of a training, or CSV of results')
    add('--out', help='folder for the pictures (default: pictures/ in the first work directory)')
    add('--counts', metavar='FILE', help='count of each class name, JSON or CSV')
    add('--scenes', type=int, default=4, help='test images to show; 0 for none')
    add('--device', default='cpu', help='cpu, cuda, cuda:1')
    args = parser.parse_args(argv)

    def body() -> None:
        first = Path(args.runs[0])
        out = Path(args.out) if args.out else (first if first.is_dir() else first.parent)
        out = out if args.out else out / 'pictures'
        counts = None if args.counts is None else Path(args.counts)
        for path in pictures(args.runs, out, counts, args.scenes, args.device):
            print(path)

    return run_command_line(body)
