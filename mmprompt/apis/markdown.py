"""Tables in Markdown, and where a text file has them."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.common.files import atomic_file


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as narrow as it can be."""
    lines = ['| ' + ' | '.join(line) + ' |' for line in (heads, *rows)]
    return '\n'.join([lines[0], '|---' * len(heads) + '|', *lines[1:]])


def aligned_grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are aligned, to be read on a terminal too."""
    cells = [heads, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |'
        for line in cells
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def format_numbers(numbers: Sequence[float], expected: int = 1) -> str:
    """Mean ± standard deviation (n - 1) of seeds; one number alone; '-' for none.

    Args:
        numbers: one per seed.
        expected: how many there will be; said if there are fewer.
    """
    if not numbers:
        return '-'
    text = f'{statistics.mean(numbers):.1f}'
    if len(numbers) > 1:
        text += f' ± {statistics.stdev(numbers):.1f}'
    return text if len(numbers) == expected else f'{text} ({len(numbers)} of {expected} seeds)'


def put_into(path: Path, blocks: Mapping[str, str]) -> list[str]:
    """Replace the marked blocks of a text file, atomically.

    A block stands between the lines ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Args:
        path: the file.
        blocks: text by name; names without a block in the file are left out, and told.

    Returns:
        The names that were replaced.

    Raises:
        UserError: there is no such file, or it has none of the blocks.
    """
    if not path.is_file():
        raise UserError(f'{path}: expected a text file with marked blocks, found none. Make it.')
    text, done = path.read_text(), []
    for name, block in blocks.items():
        begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
        match = re.search(f'{re.escape(begin)}.*?{re.escape(end)}', text, re.DOTALL)
        if match:
            text = f'{text[: match.start()]}{begin}\n\n{block}\n\n{end}{text[match.end() :]}'
            done.append(name)
    if not done:
        raise UserError(
            f'{path}: expected one of the blocks {", ".join(blocks)} between <!-- begin NAME --> '
            f'and <!-- end NAME -->, found none. Add these two lines where the table belongs.'
        )
    with atomic_file(path) as stream:
        stream.write(text.encode())
    for name in sorted(blocks.keys() - set(done)):
        print(f'{path}: has no block {name}, which was left out')
    return done
