"""``tools/encode_class_names.py``: a list of class names -> a text bank."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import mmprompt  # noqa: F401  (registers the text encoder that a base names)
from mmprompt.apis.cli import run_command_line
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank
from mmprompt.foundation.seem.class_names import Progress, make_text_bank
from mmprompt.foundation.seem.name_files import COMMAS, parse_names, read_lines, split_texts
from mmprompt.foundation.seem.templates import (
    BARE_TEMPLATES,
    NO_OBJECT_NAME,
    check_templates,
    seem_templates,
)

SUFFIX = '.safetensors'
# Two classes that agree more than this differ by the noise of their synonyms.
ALIKE = 0.98
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
