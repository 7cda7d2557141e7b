"""``tools/yolo_to_coco.py``: YOLO segment labels -> COCO instance annotations, split if asked."""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mmprompt.apis.cli import run_command_line
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.datasets.coco_classes import COCO_THING_IDS, COCO_THINGS
from mmprompt.datasets.folder import shown
from mmprompt.datasets.yolo import YoloImage, list_images, read_yolo


def read_names(path: str | Path) -> list[str]:
    """Class names from a text file, one in a line, or from `names` of a YOLO data.yaml.

    Raises:
        UserError: the file is missing or holds no names.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding='utf-8')
        names = text.splitlines()
        if Path(path).suffix in ('.yaml', '.yml'):
            names = (yaml.safe_load(text) or {}).get('names') or []
            names = [names[i] for i in range(len(names))]
    except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f'{path}: expected names of classes, one in a line, or the data.yaml of a YOLO data '
            f'set with names numbered from 0, found {type(error).__name__}: {error}. Correct '
            f'--names.'
        ) from error
    names = [str(name).strip() for name in names if str(name).strip()]
    if not names or len(set(names)) < len(names):
        raise UserError(
            f'{path}: expected names of classes, each once, found {len(names)} names, '
            f'{len(set(names))} of them different. Correct the file.'
        )
    return names


def categories(names: Sequence[str]) -> list[dict]:
    """COCO's own `category_id` if the classes are those of COCO, else 1 to C in their order."""
    ids = COCO_THING_IDS if tuple(names) == COCO_THINGS else range(1, len(names) + 1)
    return [dict(id=i, name=name, supercategory=name) for i, name in zip(ids, names)]


def parse_split(parts: Sequence[str]) -> dict[str, int | None]:
    """`['train=100', 'val=rest']` -> numbers by name; None stands for all that are left.

    Raises:
        UserError: a part has another form.
    """
    split: dict[str, int | None] = {}
    for part in parts:
        name, _, number = part.partition('=')
        if not name or name in split or not (number.isdecimal() or number == 'rest'):
            raise UserError(
                f'--split {part}: expected NAME=NUMBER or NAME=rest, each name once. For example: '
                f'--split train=100 val=rest'
            )
        split[name] = None if number == 'rest' else int(number)
    if list(split.values()).count(None) > 1:
        raise UserError('--split: expected at most one part that takes the rest. Give numbers.')
    return split


def draw(names: Sequence[str], split: Mapping[str, int | None], seed: int) -> dict[str, list[str]]:
    """Divide images by the order of a digest of seed and file name: the same everywhere.

    Folders do not matter where file names are unique.

    Returns:
        Names by part, each in its given order, and those that are in none under ''.

    Raises:
        UserError: there are fewer images than asked for.
    """
    short = {name: PurePosixPath(name).name for name in names}
    if len(set(short.values())) < len(short):
        short = {name: name for name in names}
    order = sorted(names, key=lambda n: hashlib.sha256(f'{seed}/{short[n]}'.encode()).digest())
    wanted = sum(number or 0 for number in split.values())
    if wanted > len(order):
        raise UserError(
            f'--split: expected at most the {len(order)} images that have labels, found {wanted}. '
            f'Ask for fewer, or keep images without labels with --keep-empty.'
        )
    place = {name: i for i, name in enumerate(names)}
    drawn, rest = {}, len(order) - wanted
    for part, number in split.items():
        taken = rest if number is None else number
        drawn[part] = sorted(order[:taken], key=place.__getitem__)
        order = order[taken:]
    return {**drawn, '': sorted(order, key=place.__getitem__)}


def _image_ids(names: Sequence[str]) -> dict[str, int]:
    """The number in the name if all names are numbers (COCO's), else 1 to N."""
    stems = [PurePosixPath(name).stem for name in names]
    if all(s.isdecimal() for s in stems) and len({int(s) for s in stems}) == len(stems):
        return {name: int(stem) for name, stem in zip(names, stems)}
    return {name: i for i, name in enumerate(names, start=1)}


def annotate(image: YoloImage, image_id: int, ids: Sequence[int], first: int) -> list[dict]:
    """COCO annotations of one image.

    Polygons have COCO's two digits; `area` is that of the drawn mask and `bbox` bounds the polygon,
    as in COCO.

    Args:
        ids: `category_id` of each class.
        first: id of the first annotation.
    """
    from pycocotools import mask as coco

    rows = []
    for label, points in zip(image.classes.tolist(), image.polygons):
        points = np.round(points, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        polygon = points.ravel().tolist()
        code = coco.merge(coco.frPyObjects([polygon], *image.size))
        rows.append(
            dict(
                id=first + len(rows),
                image_id=image_id,
                category_id=ids[label],
                iscrowd=0,
                bbox=np.round([*low, *(high - low)], 2).tolist(),
                area=int(coco.area(code)),
                segmentation=[polygon],
            )
        )
    return rows


def to_coco(images: Sequence[YoloImage], names: Sequence[str], ids: Mapping[str, int]) -> dict:
    """A COCO instances JSON of images whose ids are given by name."""
    listed = categories(names)
    by_class = [c['id'] for c in listed]
    rows, annotations = [], []
    for image in images:
        height, width = image.size
        number = ids[image.name]
        rows.append(dict(id=number, file_name=image.name, height=height, width=width))
        annotations += annotate(image, number, by_class, len(annotations) + 1)
    info = dict(description='Converted from YOLO segment labels by mmprompt')
    return dict(info=info, licenses=[], images=rows, annotations=annotations, categories=listed)


def convert(
    images: str | Path,
    labels: str | Path,
    out: str | Path,
    names: Sequence[str] = COCO_THINGS,
    split: Mapping[str, int | None] | None = None,
    seed: int = 0,
    keep_empty: bool = False,
    link: bool = False,
) -> str:
    """Convert a data set and return what to tell.

    Writes ``OUT/annotations/PART.json``; without a split the one part is called ``instances``.

    Args:
        images, labels: folders; `file_name` is the path below `images`.
        out: folder of the data set.
        names: of the classes in the order of their numbers.
        split: numbers of images by part, see `parse_split`.
        seed: of the split.
        keep_empty: take images without a label as well, as images without an object.
        link: make ``OUT/images`` a link to `images`.

    Raises:
        UserError: something given cannot be used.
    """
    if not Path(labels).is_dir():
        raise UserError(f'{labels}: expected the folder of the labels, found none. Correct it.')
    read = [read_yolo(images, labels, name, len(names)) for name in list_images(images)]
    empty = [image.name for image in read if not len(image.classes)]
    kept = [image.name for image in read if keep_empty or len(image.classes)]
    if not kept or len(empty) == len(read):
        raise UserError(
            f'{labels}: expected labels named like the images of {images}, found none. Give the '
            f'folders whose insides correspond, as in --images images --labels labels.'
        )
    by_name = {image.name: image for image in read}
    ids = _image_ids(list(by_name))
    drawn = draw(kept, split or {'instances': None}, seed)
    lines = [_link(Path(out) / 'images', Path(images))] if link else []
    for part, chosen in drawn.items():
        if not part:
            continue
        content = to_coco([by_name[name] for name in chosen], names, ids)
        path = Path(out) / 'annotations' / f'{part}.json'
        with atomic_file(path) as stream:
            stream.write(json.dumps(content).encode())
        present = len({row['category_id'] for row in content['annotations']})
        lines.append(
            f'{path}: {len(chosen)} images, {len(content["annotations"])} objects of {present} '
            f'of {len(names)} classes'
        )
    repeated = sum(image.repeated for image in read)
    if repeated:
        lines.append(f'{repeated} objects were listed twice in one image; kept once')
    if empty and not keep_empty:
        lines.append(f'without labels, left out ({len(empty)}): {shown(empty, 20)}')
    if drawn['']:
        lines.append(f'in no part ({len(drawn[""])}): {shown(drawn[""], 20)}')
    return '\n'.join(lines)


def _link(link: Path, target: Path) -> str:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() and link.exists() and link.resolve() != target.resolve():
        raise UserError(
            f'{link}: expected a free place for the link to {target}, found a file or folder. '
            f'Remove it, or leave --link out.'
        )
    if link.resolve() != target.resolve():
        link.unlink(missing_ok=True)
        os.symlink(target.resolve(), link)
    return f'{link} -> {target.resolve()}'


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='yolo_to_coco.py',
        description='Turn YOLO segment labels into COCO instance annotations. The classes are '
        "COCO's 80 with COCO's own category ids (1 to 90), or those of --names, numbered from 1.",
    )
    parser.add_argument('--images', required=True, help='folder of the images')
    parser.add_argument('--labels', required=True, help='folder of the labels, arranged alike')
    parser.add_argument('--out', required=True, help='folder that gets annotations/PART.json')
    parser.add_argument('--names', help="names of the classes, or a data.yaml (default: COCO's)")
    parser.add_argument(
        '--split',
        nargs='+',
        metavar='PART=NUMBER',
        help='divide the images, for example train=100 val=rest; drawn by seed and file name',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the split (default 0)')
    parser.add_argument('--keep-empty', action='store_true', help='keep images without labels')
    parser.add_argument('--link', action='store_true', help='make OUT/images a link to --images')
    args = parser.parse_args(argv)

    def body() -> None:
        names = read_names(args.names) if args.names else COCO_THINGS
        split = parse_split(args.split) if args.split else None
        print(
            convert(
                args.images,
                args.labels,
                args.out,
                names,
                split,
                args.seed,
                args.keep_empty,
                args.link,
            )
        )

    return run_command_line(body)
