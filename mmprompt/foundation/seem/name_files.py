"""Class names as people write them: in a file, one class per line, or in one line of a command."""

import re
from collections.abc import Iterable
from pathlib import Path

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.templates import clean_name
from mmprompt.foundation.seem.tokenizer import encode_text

COMMAS = ('refuse', 'name', 'synonyms')
# (where it stands, what is written there)
Line = tuple[str, str]


def read_lines(path: str | Path, colours: bool = False) -> list[Line]:
    """The lines of a UTF-8 file without comments, with their numbers.

    A '#' begins a comment at the start of a line, or between two spaces; inside a word, as in "C#",
    it belongs to the word.

    Args:
        path: the file.
        colours: leave '#rrggbb' behind a space where it is, as a colour.

    Raises:
        UserError: no such file, no UTF-8, blank lines, nothing but comments, or a '#' that could be
            either.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise UserError(
            f'{path}: expected a text file, found {error.strerror}. Correct the path.'
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b'\n') + 1
        raise UserError(
            f'{path}, line {line}: expected UTF-8 text, found the byte '
            f'0x{error.object[error.start]:02x}. Save the file as UTF-8.'
        ) from error
    lines, blank = [], []
    stray = r'\s#(?![0-9a-fA-F]{6}(?:\s|$))' if colours else r'\s#'
    for number, line in enumerate(text.removesuffix('\n').split('\n'), 1):
        kept = re.split(r'(?:^\s*#|\s#(?=\s|$))', line)[0].strip()
        if re.search(stray, kept):
            raise UserError(
                f'{path}, line {number}: expected a space on both sides of the # of a comment, '
                f'found {kept!r}. Add the space, or remove the #.'
            )
        if kept:
            lines.append((f'line {number}', kept))
        elif not line.strip():
            blank.append(str(number))
    if blank:
        raise UserError(
            f'{path}: expected text in every line, as line order is label order, found blank '
            f'{"line" if len(blank) == 1 else "lines"} {", ".join(blank)}. Remove them.'
        )
    if not lines:
        raise UserError(f'{path}: expected lines of text, found none. Write one class per line.')
    return lines


def split_texts(texts: str) -> list[Line]:
    """The classes of ``--texts``, which semicolons separate.

    Raises:
        UserError: one of them is empty.
    """
    parts = [part.strip() for part in texts.split(';')]
    if '' in parts:
        raise UserError(
            f'--texts: expected a class between every two semicolons, found none at place '
            f'{parts.index("") + 1} of {texts!r}. Remove the semicolon.'
        )
    return [(f'class {i}', part) for i, part in enumerate(parts, 1)]


def parse_names(lines: Iterable[Line], source: str, commas: str = 'refuse') -> list[list[str]]:
    """Each line as its synonyms.

    Args:
        lines: places and texts.
        source: what to call them in errors.
        commas: what a comma is: 'refuse' (an error), 'name' (a part of the name) or 'synonyms'.

    Raises:
        UserError: an empty synonym, a comma of unknown meaning, or a class that comes twice.
    """
    classes, seen, twice = [], {}, []
    for place, line in lines:
        if ',' in line and commas == 'refuse':
            raise UserError(
                f'{source}, {place}: expected no comma, which could separate synonyms or belong to '
                f"a name, found {line!r}. Separate synonyms by '|', and give --commas name if "
                f'commas belong to names, or --commas synonyms.'
            )
        words = re.split(r'[|,]' if commas == 'synonyms' else r'\|', line)
        words = [' '.join(word.split()) for word in words]
        if not all(encode_text(clean_name(word)) for word in words):
            raise UserError(
                f'{source}, {place}: expected a name before and after every separator, found '
                f'{line!r}. Remove what is too much.'
            )
        keys = [encode_text(clean_name(word)) for word in words]
        for i, key in enumerate(keys):  # what has the same tokens is the same to the encoder
            if key in keys[:i]:
                twice.append(f'{words[i]!r} twice in {place}')
        if keys[0] in seen:
            twice.append(f'{words[0]!r} in {seen[keys[0]]} and {place}')
        seen.setdefault(keys[0], place)
        classes.append(words)
    if twice:
        raise UserError(
            f'{source}: expected every class once, found {"; ".join(twice)}. Remove or rename the '
            f'duplicates.'
        )
    return classes


def read_name_file(path: str | Path) -> list[list[str]]:
    """The classes of a file as `tools/encode_class_names.py` reads it, each with its names.

    Raises:
        UserError: see `read_lines` and `parse_names`.
    """
    return parse_names(read_lines(path), str(path))
