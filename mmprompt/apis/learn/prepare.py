"""From a user's data to all that `tools/learn.py` trains on: checks, parts, configs, manifest."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmprompt.apis.bases import is_config
from mmprompt.apis.learn import spm
from mmprompt.apis.learn.classes_file import read_classes
from mmprompt.apis.learn.config import METHODS, Recipe, base_facts, short_side_of, write_configs
from mmprompt.apis.learn.your_data import Data, Sources, read_data
from mmprompt.apis.prepare.encode import ALIKE, closest_pairs, shown_progress
from mmprompt.common.errors import UserError
from mmprompt.common.few_shot import Manifest, choose, dataset_record
from mmprompt.common.files import write_json
from mmprompt.datasets.folder import mask_name, shown, write_list
from mmprompt.datasets.parts import (
    PARTS,
    folder_parts,
    group_names,
    listed_parts,
    random_parts,
    stretches,
)
from mmprompt.foundation.seem.class_names import make_text_bank

MANIFEST = 'manifest.json'
OURS = (
    'labels', 'splits', 'configs', 'pictures', 'few_shot.json', spm.CLASS_PRIOR, 'table.md',
    'table.csv',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Division:
    """How images are divided; see the command line of the same names."""

    split: str = 'random'
    parts: tuple[int, ...] = (60, 10, 30)
    group: str | None = None
    shots: int | None = None


def divide(names: Sequence[str], how: Division, seed: int) -> dict[str, list[str]]:
    """Images by part.

    Raises:
        UserError: they cannot be divided so.
    """
    if how.split == 'folders':
        return folder_parts(names)
    if how.split not in ('random', 'in-order'):
        if not Path(how.split).is_dir():
            raise UserError(
                f'--split: expected random, in-order, folders or a folder with train.txt and '
                f'test.txt, found {how.split!r}. Correct it.'
            )
        return listed_parts(names, how.split)
    groups = group_names(names, how.group)
    if how.split == 'random':
        return random_parts(groups, how.parts, seed)
    return stretches(groups, how.parts)


def check_words(sources: Sources, data_classes: Sequence, base: str) -> list[str]:
    """Notes on the class names; their embeddings are cached for what follows.

    Raises:
        UserError: the base's text encoder does not know a word.
    """
    if is_config(base):
        return []  # to SPM, classes are numbers
    try:
        bank = make_text_bank(list(data_classes), base, None, shown_progress())
    except UserError as error:
        raise UserError(
            f'{sources.classes}: {error} To rename a class is enough: write words that the base '
            f'knows in its line, or take a full base such as seem_focalt_v0.pt.'
        ) from error
    alike = [(a, b) for cosine, a, b in closest_pairs(bank) if cosine > ALIKE]
    return [f'{a} and {b} are nearly the same to the text encoder' for a, b in alike[:5]]


def prepare(
    sources: Sources, how: Division, recipe: Recipe, out: Path, force: bool, check: bool = False
) -> dict:
    """Check data and words, divide the images, and write label maps, lists, configs and manifest.

    An earlier manifest of the same data and settings is kept.

    Args:
        sources: the user's files.
        how: the division.
        recipe: of training; a `short_side` of 0 is chosen here.
        out: the folder of the results.
        force: start anew if `out` holds another run.
        check: write nothing.

    Returns:
        The manifest.

    Raises:
        UserError: something is wrong with what the user gave, or `out` is another run's.
    """
    earlier = None if force else _earlier(out, sources)
    classes, facts = read_classes(sources.classes), base_facts(recipe.base)
    notes = check_words(sources, classes.texts, recipe.base)
    if force and not check:
        _start_anew(out)
    new = not out.exists()
    try:
        data = read_data(sources, None if earlier or check else out / 'labels')
        parts = divide(data.names, how, recipe.seed)
        if not recipe.short_side:
            side = short_side_of(facts, int(np.median(data.sizes.min(1))))
            recipe = dataclasses.replace(recipe, short_side=side)
        manifest = _manifest(sources, how, recipe, facts, data, parts, notes)
        if earlier:
            _compare(earlier, manifest, out)
        else:
            few_shot = None if how.shots is None else _few_shot(data, parts['train'], how, recipe)
            if not check:
                _write(manifest, data, few_shot, recipe, facts, out, sources.images)
    except BaseException:
        if not (earlier or check):  # the next call finds what this one found
            _clear(out)
            if new and out.is_dir():
                out.rmdir()
        raise
    return manifest


def _earlier(out: Path, sources: Sources) -> dict | None:
    """The manifest that is in `out`.

    Raises:
        UserError: `out` holds something else, or lies among the images.
    """
    if out.resolve().is_relative_to(sources.images.resolve()):
        raise UserError(
            f'--out {out}: expected a folder outside of --images {sources.images}, found one in '
            f'it, where results would be taken for images. Give another.'
        )
    manifest = _read_manifest(out)
    if manifest is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f'--out {out}: expected a new folder, or one of an earlier call, found other files and '
            f'no {MANIFEST} of this command. Give another, or --force to put results beside them.'
        )
    return manifest


def _read_manifest(out: Path) -> dict | None:
    """The manifest of an earlier call, None if there is none or something else of that name."""
    try:
        content = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get('kind') == 'learn' else None


def _start_anew(out: Path) -> None:
    """Clear `out` of an earlier call; what is there of someone else is never touched.

    Raises:
        UserError: files of someone else have the names of results.
    """
    theirs = [name for name in (*OURS, *METHODS, MANIFEST) if (out / name).exists()]
    if theirs and _read_manifest(out) is None:
        raise UserError(
            f'--out {out}: expected room for results, found {shown(theirs)}, which this command '
            f'did not make. Give another folder.'
        )
    _clear(out)


def _clear(out: Path) -> None:
    """Remove what an earlier call made, and nothing else."""
    for name in (*OURS, *METHODS, MANIFEST):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def _manifest(sources, how, recipe, facts, data: Data, parts, notes) -> dict:
    """All that the results depend on, and what is worth knowing about the data."""
    place = {name: i for i, name in enumerate(data.names)}
    counts = {
        part: dict(
            zip(data.classes.names, data.presence[[place[n] for n in names]].sum(0).tolist())
        )
        for part, names in parts.items()
    }
    names = data.classes.names
    unseen = [n for n in names if not counts['train'][n] and counts['test'][n]]
    unmeasured = [n for n in names if not counts['test'][n] and counts['train'][n]]
    notes = notes + data.notes
    if unseen:
        notes.append(f'no training image shows {shown(unseen, 20)}: try another --seed or lists')
    if unmeasured:
        notes.append(f'no test image shows {shown(unmeasured, 20)}: not measured')
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(sources).items()}
    settings = dict(given, **vars(how), **vars(recipe), base_fingerprint=facts['fingerprint'])
    used = {name: data.hashes[name] for part in PARTS for name in parts[part]}
    return json.loads(
        json.dumps(
            dict(
                format=1,
                kind='learn',
                settings=settings,
                classes=data.classes.texts,
                parts=parts,
                images_per_class=counts,
                notes=notes,
                files=used,
            )
        )
    )


def _compare(earlier: Mapping, now: Mapping, out: Path) -> None:
    """Raises `UserError` if an earlier run was of other settings or data."""
    old, new = earlier.get('settings', {}), now['settings']
    # How many processes read images changes nothing.
    keys = sorted(k for k in old | new if k != 'workers' and old.get(k) != new.get(k))
    if keys:
        what = ', '.join(f'{k} {old.get(k)!r} there and {new.get(k)!r} now' for k in keys)
    else:
        files = [earlier.get('files', {}), now['files']]
        changed = [n for n in files[0] | files[1] if files[0].get(n) != files[1].get(n)]
        same = all(earlier.get(k) == now[k] for k in ('classes', 'parts'))
        if not changed and same:
            return
        what = f'other images or masks ({shown(changed)})' if changed else 'other classes or parts'
    raise UserError(
        f'{out}: expected the run of the earlier call to go on, found {what}. Give another --out, '
        f'or --force to start anew.'
    )


def _few_shot(data: Data, names: list[str], how: Division, recipe: Recipe) -> Manifest:
    place = {name: i for i, name in enumerate(data.names)}
    presence = data.presence[[place[name] for name in names]]
    classes = data.classes.names
    return choose(names, presence, classes, how.shots, recipe.seed, allow_missing=True)


def _write(
    manifest: Mapping,
    data: Data,
    few_shot: Manifest | None,
    recipe: Recipe,
    facts: Mapping,
    out: Path,
    images: Path,
) -> None:
    parts = manifest['parts']
    for part, names in parts.items():
        write_list(names, out / 'splits' / f'{part}.txt')
    if few_shot is not None:
        chosen = {n: np.asarray(Image.open(out / 'labels' / mask_name(n))) for n in few_shot.images}
        few_shot.dataset = dataset_record(parts['train'], chosen)
        few_shot.save(out / 'few_shot.json')
    if is_config(recipe.base):
        chosen = parts['train'] if few_shot is None else few_shot.images
        spm.count_prior(out, data.classes.names, chosen)
    palette = [list(c) for c in data.classes.colours or _palette(len(data.classes.names))]
    write_configs(out, images, data.classes, palette, parts, recipe, facts, few_shot is not None)
    write_json(out / MANIFEST, manifest)  # last: it says that the rest is there


def _palette(number: int) -> list[tuple[int, ...]]:
    """Colours that differ: bits of the number spread over the channels, as PASCAL VOC has it."""
    colours = []
    for value in range(1, number + 1):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (value >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append(tuple(colour))
    return colours
