"""``tools/pascal_part_to_coco.py``: Pascal-Part -> COCO instances of parts and wholes."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmprompt.apis.cli import run_command_line
from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file
from mmprompt.datasets.folder import shown
from mmprompt.datasets.pascal_part import (
    PASCAL_PARTS,
    PASCAL_WHOLES,
    PascalObject,
    part_category,
    read_pascal_part,
)

#: Parts first, so that their numbers are the literature's, 1 to 93.
CATEGORIES = (*PASCAL_PARTS, *PASCAL_WHOLES.values())
IDS = {name: number for number, name in enumerate(CATEGORIES, start=1)}


def categories() -> list[dict]:
    """The 93 parts and 20 wholes in COCO's form; the supercategory of a part is its whole."""
    return [
        dict(id=number, name=name, supercategory=name.partition(':')[0])
        for name, number in IDS.items()
    ]


def read_list(path: str | Path) -> list[str]:
    """Names of images, without suffix, from a list of VOC's: the first word of each line.

    Raises:
        UserError: the list is missing or empty.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'{path}: expected a list of images as VOC2010/ImageSets/Main has them, found none '
            f'that can be read ({error}). Correct --lists or --splits.'
        ) from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f'{path}: expected names of images, found none. Unpack VOC 2010 again.')
    return names


def annotate(objects: Sequence[PascalObject], image_id: int, first: int) -> list[dict]:
    """COCO annotations of one image: each whole, followed by its parts with ``part_of``, its id.

    Masks without a pixel and parts without a category are left out.

    Args:
        first: id of the first annotation.
    """
    rows: list[dict] = []

    def add(name: str, mask: np.ndarray, whole: int | None) -> int | None:
        if not mask.any():
            return None
        row = dict(id=first + len(rows), image_id=image_id, category_id=IDS[name], iscrowd=0)
        row |= _shape(mask)
        if whole is not None:
            row['part_of'] = whole
        rows.append(row)
        return row['id']

    for each in objects:
        whole = add(each.kind, each.mask, None)
        for name, mask in each.parts:
            category = part_category(each.kind, name)
            if category is not None:
                add(category, mask, whole)
    return rows


def _shape(mask: np.ndarray) -> dict:
    from pycocotools import mask as coco

    code = coco.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        segmentation=dict(size=list(mask.shape), counts=code['counts'].decode()),
        area=int(coco.area(code)),
        bbox=coco.toBbox(code).tolist(),
    )


def to_coco(annotations: str | Path, names: Sequence[str]) -> tuple[dict, list[str]]:
    """A COCO instances JSON of the images that have parts, and the names of those that have none.

    Args:
        annotations: folder of the MATLAB files.
        names: of images, without suffix.

    Raises:
        UserError: a file cannot be used.
    """
    images, rows, without = [], [], []
    for name in names:
        objects = read_pascal_part(Path(annotations) / f'{name}.mat')
        found = annotate(objects, _image_id(name), len(rows) + 1)
        if all(row['category_id'] > len(PASCAL_PARTS) for row in found):
            without.append(name)
            continue
        height, width = objects[0].mask.shape
        images.append(dict(id=_image_id(name), file_name=f'{name}.jpg', height=height, width=width))
        rows += found
    info = dict(description='Converted from Pascal-Part by mmprompt')
    content = dict(info=info, licenses=[], images=images, annotations=rows, categories=categories())
    return content, without


def _image_id(name: str) -> int:
    """2008_000002 -> 2008000002."""
    digits = name.replace('_', '')
    if not digits.isdecimal():
        raise UserError(
            f'{name}: expected the name of an image of VOC 2010 such as 2008_000002, found '
            f'another. Correct the list.'
        )
    return int(digits)


def convert(
    annotations: str | Path, lists: str | Path, out: str | Path, splits: Sequence[str]
) -> str:
    """Write ``OUT/annotations/SPLIT.json`` of each split and return what to tell.

    Args:
        annotations: folder of the MATLAB files.
        lists: folder with ``SPLIT.txt``.
        out: folder of the data set.
        splits: names of lists.

    Raises:
        UserError: something given cannot be used, or no image has parts.
    """
    lines = []
    for split in splits:
        content, without = to_coco(annotations, read_list(Path(lists) / f'{split}.txt'))
        if not content['images']:
            raise UserError(
                f'{annotations}: expected images of {split}.txt with parts, found none. Give the '
                f'folder Annotations_Part of Pascal-Part.'
            )
        path = Path(out) / 'annotations' / f'{split}.json'
        with atomic_file(path) as stream:
            stream.write(json.dumps(content).encode())
        rows = content['annotations']
        wholes = sum(row['category_id'] > len(PASCAL_PARTS) for row in rows)
        lines.append(
            f'{path}: {len(content["images"])} images, {len(rows) - wholes} parts of '
            f'{wholes} objects'
        )
        if without:
            lines.append(f'without parts, left out ({len(without)}): {shown(without, 20)}')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='pascal_part_to_coco.py',
        description="Turn Pascal-Part's MATLAB files into COCO instance annotations of 93 parts "
        'and the 20 kinds of objects they belong to. Images without any of the parts are left out.',
    )
    parser.add_argument('--annotations', required=True, help='folder of the .mat files')
    parser.add_argument('--lists', required=True, help='folder of VOC 2010 with train.txt, val.txt')
    parser.add_argument('--out', required=True, help='folder that gets annotations/SPLIT.json')
    parser.add_argument(
        '--splits', nargs='+', default=['train', 'val'], help='lists (default train val)'
    )
    args = parser.parse_args(argv)

    def body() -> None:
        print(convert(args.annotations, args.lists, args.out, args.splits))

    return run_command_line(body)
