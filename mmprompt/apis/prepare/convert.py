"""``tools/convert_seem.py``: turn a SEEM checkpoint into a base file of mmprompt."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmprompt.apis.cli import run_command_line
from mmprompt.common.checkpoint import read_metadata, resolve_weights
from mmprompt.common.errors import UserError
from mmprompt.common.files import sha256_of
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import read_model, save_weights
from mmprompt.foundation.seem.public_files import PUBLIC_FILES, variant_of

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
EPILOG = """\
The file that comes out is safetensors: it is read without unpickling, and it holds the sizes of the
model, a fingerprint, and the source's name, size and SHA-256. Give it to a config as `base`, or to
SEEM.from_checkpoint.

Prompts are tied to the fingerprint of their base, which is taken over the float32 values of all
tensors. Converting as stored, or to fp32, keeps it: a prompt learned on the source loads on the
conversion. With fp16, bf16 or --no-text it is another base, on which prompts are learned anew.
"""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        source: the file that was read, with its `size` in bytes and `sha256`.
        public: name of the published file that it equals byte for byte, or None.
        out: the base file.
        variant: 'Focal-T', … or 'custom'.
        parameters: numbers per part.
        dtype: of the stored floating point tensors.
        fingerprint: of the base file.
    """

    source: Path
    size: int
    sha256: str
    public: str | None
    out: Path
    variant: str
    parameters: dict[str, int]
    dtype: str
    fingerprint: str

    def describe(self) -> str:
        """Several lines for people."""
        known = f'the published {self.public}' if self.public else 'none of the published files'
        rows = [
            ('source', f'{self.source} ({self.size:,} bytes)'),
            ('sha256', f'{self.sha256} ({known})'),
            ('variant', self.variant),
            *((part, f'{count:,} parameters') for part, count in self.parameters.items()),
            ('total', f'{sum(self.parameters.values()):,} parameters, {self.dtype}'),
            ('fingerprint', self.fingerprint),
            ('written', f'{self.out} ({self.out.stat().st_size:,} bytes)'),
        ]
        return '\n'.join(f'{name:<14}{text}' for name, text in rows)


def convert_seem(
    source: str | os.PathLike,
    out: str | os.PathLike,
    dtype: str | None = None,
    text: bool = True,
    force: bool = False,
) -> Conversion:
    """Read a SEEM checkpoint, strictly, and write it as a base file, atomically.

    The record inside says where it came from: `source` (`name`, `size` in bytes, `sha256`, `public`
    name or None, and `record` if the source was a base file), `dtype` and `text_encoder`.

    Args:
        source: a public checkpoint, a base file or ``mmprompt://NAME``.
        out: the safetensors file to write.
        dtype: 'fp32', 'fp16' or 'bf16'; None keeps each tensor as stored.
        text: keep the text encoder, which `SSPromptSegmentor` needs for new class names.
        force: replace an existing file.

    Raises:
        UserError: the source is no SEEM or does not fit, `out` exists or has another suffix, or a
            value is too large for `dtype`.
    """
    out = Path(out).expanduser()
    _check_out(source, out, force)
    model, tensors, metadata = read_model(SEEM, source, text)
    path = resolve_weights(source)
    _cast(tensors, dtype, str(path))
    sha256 = sha256_of(path)
    public = next((f.name for f in PUBLIC_FILES if f.sha256 == sha256), None)
    origin = dict(name=path.name, size=path.stat().st_size, sha256=sha256, public=public)
    if metadata['record']:
        origin['record'] = metadata['record']
    found = {str(v.dtype).removeprefix('torch.') for v in tensors.values() if v.is_floating_point()}
    stored = ', '.join(sorted(found))
    record = dict(source=origin, dtype=stored, text_encoder=model.text_encoder is not None)
    save_weights(out, tensors, metadata['config'], record)
    return Conversion(
        source=path,
        size=origin['size'],
        sha256=sha256,
        public=public,
        out=out,
        variant=variant_of(metadata['config']),
        parameters={
            name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
        },
        dtype=stored,
        fingerprint=read_metadata(out)['fingerprint'],
    )


def _check_out(source: str | os.PathLike, out: Path, force: bool) -> None:
    if out.suffix != '.safetensors':
        raise UserError(
            f'--out {out}: expected a name ending in .safetensors, by which base files are '
            f'recognised. Give {out.with_suffix(".safetensors")}.'
        )
    if not out.exists():
        return
    if not out.is_file():
        raise UserError(
            f'--out {out}: expected a file to write, found a folder. Name a file in it.'
        )
    if Path(source).expanduser().exists() and out.samefile(Path(source).expanduser()):
        raise UserError(f'--out {out}: expected another file than the source. Give another name.')
    if not force:
        raise UserError(
            f'--out {out}: expected a new file, found an existing one. Give another name, or '
            f'--force to replace it.'
        )


def _cast(tensors: dict[str, Tensor], dtype: str | None, source: str) -> None:
    """One tensor at a time, so that two whole copies never exist."""
    if dtype is None:
        return
    for name, value in tensors.items():
        if not value.is_floating_point():
            continue
        tensors[name] = value.to(DTYPES[dtype])
        if not tensors[name].isfinite().all() and value.isfinite().all():
            raise UserError(
                f'{source}: expected values that {dtype} can hold, found {name} up to '
                f'{float(value.abs().max()):.3g}. Use --dtype bf16, which has the range of fp32.'
            )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='convert_seem.py',
        description='Convert a SEEM checkpoint to a base file of mmprompt.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', help='seem_focalt_v0.pt, seem_focall_v0.pt, … or a base file')
    parser.add_argument('--out', required=True, help='the safetensors file to write')
    parser.add_argument('--dtype', choices=DTYPES, help='default: as stored')
    parser.add_argument(
        '--no-text', action='store_true', help='leave out the text encoder (63 M parameters)'
    )
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    args = parser.parse_args(argv)

    def body() -> None:
        done = convert_seem(args.source, args.out, args.dtype, not args.no_text, args.force)
        print(done.describe())

    return run_command_line(body)
