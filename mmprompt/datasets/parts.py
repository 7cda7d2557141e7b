"""Which images train, which are for choosing and which are for measuring."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.datasets.folder import shown, stem

PARTS = ('train', 'val', 'test')


def group_names(names: Sequence[str], pattern: str | None) -> dict[str, list[str]]:
    """Names by group, both sorted: what a regular expression finds in the name without suffix.

    Its first bracket, or the whole match without brackets; None makes every image its own group.

    Raises:
        UserError: the pattern is none, or some names do not match.
    """
    if pattern is None:
        return {name: [name] for name in sorted(names)}
    try:
        found = {name: re.search(pattern, stem(name)) for name in sorted(names)}
    except re.error as error:
        raise UserError(
            f'--group: expected a regular expression, found {pattern!r} ({error}).'
        ) from error
    lost = [name for name, match in found.items() if match is None]
    if lost:
        raise UserError(
            f'--group {pattern}: expected a pattern that every name has, found none in '
            f'{shown(lost)}. Widen it.'
        )
    groups: dict[str, list[str]] = {}
    for name, match in found.items():
        key = match.group(1) if match.re.groups else match.group()
        groups.setdefault(key or '', []).append(name)
    return dict(sorted(groups.items()))


def wanted_sizes(number: int, shares: Sequence[int]) -> list[int]:
    """How many of some images go to each part, by shares per cent; none left empty but by share 0.

    Raises:
        UserError: there are fewer images than parts.
    """
    least = sum(share > 0 for share in shares)
    if number < least:
        raise UserError(
            f'split: expected at least {least} images (or groups) for {least} parts, found '
            f'{number}. Label more, or leave the part for choosing out with --parts 60,0,40.'
        )
    val, test = (max(1, round(number * s / 100)) if s else 0 for s in shares[1:])
    while val + test >= number:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return [number - val - test, val, test]


def random_parts(groups: Mapping[str, Sequence[str]], shares: Sequence[int], seed: int) -> dict:
    """Draw parts by seed, groups kept together.

    The order of groups is that of the hashes of seed and name, the same on every machine. Large
    groups go first, each to the part that lacks most.

    Raises:
        UserError: there are fewer groups than parts.
    """
    wanted_sizes(len(groups), shares)
    wanted = wanted_sizes(sum(map(len, groups.values())), shares)
    hashed = {g: hashlib.sha256(f'{seed}\0{g}'.encode()).hexdigest() for g in groups}
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    order = sorted(groups, key=lambda g: (-len(groups[g]), hashed[g]))
    used = [part for part, share in zip(PARTS, shares) if share]
    for i, group in enumerate(order):
        empty = [part for part in used if not parts[part]]
        open_parts = empty if len(empty) >= len(order) - i else used
        lack = {part: wanted[PARTS.index(part)] - len(parts[part]) for part in open_parts}
        parts[max(lack, key=lack.get)] += groups[group]
    return {part: sorted(names) for part, names in parts.items()}


def stretches(groups: Mapping[str, Sequence[str]], shares: Sequence[int]) -> dict:
    """Consecutive stretches in the order of names, for frames of one video; groups kept together.

    Raises:
        UserError: there are fewer groups than parts.
    """
    sizes = wanted_sizes(len(groups), shares)
    keys, parts, first = sorted(groups), {}, 0
    for part, size in zip(PARTS, sizes):
        parts[part] = [name for key in keys[first : first + size] for name in groups[key]]
        first += size
    return parts


def folder_parts(names: Sequence[str]) -> dict:
    """Parts by the first folder of each name: train, val and test.

    Raises:
        UserError: another folder, or no image to train on or to measure with.
    """
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in sorted(names):
        first = name.partition('/')[0]
        if '/' not in name or first not in parts:
            raise UserError(
                f'--split folders: expected images in the folders train, val and test, found '
                f'{name}. Move it, or give lists.'
            )
        parts[first].append(name)
    return _whole(parts, '--split folders')


def listed_parts(names: Sequence[str], folder: str | Path) -> dict:
    """Parts from train.txt, test.txt and, if it is there, val.txt: one image per line.

    Lines are paths below the image folder; the suffix may be left out.

    Raises:
        UserError: a list is missing, names no image, or shares one with another.
    """
    folder, known = Path(folder), {stem(name): name for name in names}
    known.update({name: name for name in names})
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    where: dict[str, str] = {}
    for part in PARTS:
        path = folder / f'{part}.txt'
        if not path.is_file():
            if part == 'val':
                continue
            raise UserError(f'{path}: expected a list of images, found no such file. Write it.')
        lines = [x.strip() for x in path.read_text(encoding='utf-8-sig').splitlines() if x.strip()]
        lost = [line for line in lines if line not in known]
        if lost:
            raise UserError(
                f'{path}: expected labelled images of the folder, found {shown(lost)}. Correct '
                f'the list.'
            )
        for name in dict.fromkeys(known[line] for line in lines):
            if name in where:
                raise UserError(
                    f'{path}: expected images of no other list, found {name}, which '
                    f'{where[name]}.txt has. Remove it from one.'
                )
            where[name] = part
            parts[part].append(name)
    return _whole(parts, str(folder))


def _whole(parts: dict, source: str) -> dict:
    empty = [part for part in ('train', 'test') if not parts[part]]
    if empty:
        raise UserError(
            f'{source}: expected images to learn from and images to measure with, found none in '
            f'{" and ".join(empty)}. Add some.'
        )
    return parts
