"""``tools/encode_class_names.py``: a list of class names -> a text bank."""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

import mmprompt  # noqa: F401  (registers the text encoder that a base names)
from mmprompt.apis.cli import run_command_line
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank
from mmprompt.foundation.seem.class_names import Progress, make_text_bank
from mmprompt.foundation.seem.templates import (
    BARE_TEMPLATES,
    NO_OBJECT_NAME,
    check_templates,
    clean_name,
    seem_templates,
)
from mmprompt.foundation.seem.tokenizer import encode_text

SUFFIX = '.safetensors'
# Two classes that agree more than this differ by the noise of their synonyms.
ALIKE = 0.98
COMMAS = ('refuse', 'name', 'synonyms')
TEMPLATES = {'seem': seem_templates, 'bare': lambda: BARE_TEMPLATES}
DESCRIPTION = """\
Encode class names with the text encoder of a SEEM, once, into a small file: one unit row per class
and, last, the no-object row ("background"). No text encoder is needed afterwards.

The file of names is UTF-8 text, one class per line, in the order of the label values:

    # a comment
    road
    truck | lorry          # synonyms, averaged; the first is the name of the class

'|' separates synonyms. A comma is refused unless --commas says what it means, since
"building, edifice" are two words for one thing and "door, screen" is one name.
"""
EPILOG = """\
examples:
  python tools/encode_class_names.py --base mmprompt://seem-nano_streets --names classes.txt \\
      --out my_classes.safetensors
  python tools/encode_class_names.py --base seem_focalt_v0.pt --texts "road; sky; truck | lorry" \\
      --out my_classes.safetensors

what to do with the file:
  in a config    SSPromptSegmentor or EncoderDecoder:
                 decode_head=dict(type='SEEMPromptHead', text_bank='my_classes.safetensors', ...)
  in Python      bank = TextBank.load('my_classes.safetensors')      # mmprompt.common.text_bank
                 seem = SEEM.from_checkpoint('seem_focalt_v0.pt')    # mmprompt.foundation.seem
                 labels = seem.segment(rgb, classes=bank.embeddings)
"""
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


def read_templates(spec: str) -> tuple[str, ...]:
    """The templates that ``--templates`` names: 'seem', 'bare', or those of a file.

    Raises:
        UserError: no such file, or a line without exactly one '{}'.
    """
    if spec in TEMPLATES:
        return TEMPLATES[spec]()
    lines = read_lines(spec)
    for place, line in lines:
        try:
            check_templates([line])
        except UserError as error:
            raise UserError(f'{spec}, {place}: {error}') from error
    return tuple(line for _, line in lines)


def closest_pairs(bank: TextBank) -> list[tuple[float, str, str]]:
    """Cosine similarity of every two rows and their names, the most similar first."""
    names = [*map(repr, bank.classes), f'the no-object row ({NO_OBJECT_NAME!r})']
    cosine = bank.embeddings @ bank.embeddings.T  # (C+1, C+1)
    first, second = torch.triu_indices(len(names), len(names), offset=1)
    values, order = cosine[first, second].sort(descending=True, stable=True)
    return [
        (value, names[first[i]], names[second[i]])
        for value, i in zip(values.tolist(), order.tolist(), strict=True)
    ]


def report(bank: TextBank, path: Path) -> str:
    """What was written, the most similar classes, and warnings."""
    rows, dim = bank.embeddings.shape
    pairs = closest_pairs(bank)
    lines = [
        f'{path}: {rows} rows of {dim} numbers: {rows - 1} classes and the no-object row, '
        f'{len(bank.templates)} templates',
        f'most similar: {pairs[0][1]} and {pairs[0][2]}, cosine {pairs[0][0]:.3f}',
    ]
    alike = [pair for pair in pairs if pair[0] > ALIKE]
    for cosine, first, second in alike[:10]:
        lines.append(
            f'warning: {first} and {second} are nearly the same to the encoder (cosine '
            f'{cosine:.4f}); which of them a region gets is chance. Choose other words.'
        )
    if len(alike) > 10:
        lines.append(f'warning: {len(alike) - 10} more pairs have a cosine above {ALIKE}')
    joined = [name for name in bank.classes if '_' in name]
    if joined:
        lines.append(
            f'warning: {joined[0]!r} has an underscore, which the encoder reads as a sign of its '
            f'own; names are better written with spaces ({len(joined)} such)'
        )
    return '\n'.join(lines)


def check_out(out: str, force: bool) -> Path:
    """Where to write.

    Raises:
        UserError: another suffix, a folder, or a file that exists without `force`.
    """
    path = Path(out).expanduser()
    if path.suffix != SUFFIX:
        raise UserError(f'--out: expected a name that ends in {SUFFIX}, found {out!r}. Rename it.')
    if path.is_dir() or (path.exists() and not force):
        raise UserError(
            f'{path}: expected no such file yet, found {"a folder" if path.is_dir() else "one"}. '
            f'Give another --out{"" if path.is_dir() else ", or --force to replace it"}.'
        )
    return path


def shown_progress(every: float = 2.0) -> Progress:
    """A callback that prints to stderr at most once in `every` seconds, with the time left."""
    start = shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= every:
            shown = now
            left = (now - start) * (total - done) / done
            print(f'  {done} of {total} texts, {left:.0f} s left', file=sys.stderr, flush=True)

    return progress


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='encode_class_names.py',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--base', required=True, help='SEEM with a text encoder: a file, or mmprompt://NAME'
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument('--names', metavar='FILE', help='file of class names, one per line')
    given.add_argument('--texts', metavar='TEXT', help='class names separated by semicolons')
    parser.add_argument('--out', required=True, metavar=f'FILE{SUFFIX}', help='the bank to write')
    parser.add_argument(
        '--templates',
        default='seem',
        metavar='seem|bare|FILE',
        help="sentences around a name: SEEM's 81 (default), the bare name, or the lines of a file "
        "with one '{}' each",
    )
    parser.add_argument(
        '--commas', choices=COMMAS, default=COMMAS[0], help='what a comma is (default: an error)'
    )
    parser.add_argument('--force', action='store_true', help='replace the file of --out')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    args = _parser().parse_args(argv)

    def body() -> None:
        path = check_out(args.out, args.force)
        lines = split_texts(args.texts) if args.names is None else read_lines(args.names)
        classes = parse_names(lines, args.names or '--texts', args.commas)
        names = [words[0] if len(words) == 1 else words for words in classes]
        templates = read_templates(args.templates)
        bank = make_text_bank(names, args.base, templates, shown_progress())
        try:
            bank.save(path)
        except OSError as error:
            raise UserError(
                f'{path}: expected a place to write to, found {error.strerror}. Give another --out.'
            ) from error
        print(report(bank, path))

    return run_command_line(body)
