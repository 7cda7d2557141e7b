"""Files that are either whole or not there."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of ``path`` and rename it to ``path`` when the block succeeds.

    A crash inside the block leaves an earlier file at ``path`` as it was; a failed block leaves no
    temporary file either. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + '\n'
    with atomic_file(path) as stream:
        stream.write(text.encode())


def sha256_of(path: str | os.PathLike) -> str:
    """The digest of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def cache_root() -> Path:
    """Return the folder for everything that can be computed again: $MMPROMPT_CACHE or ~/.cache."""
    default = Path.home() / '.cache' / 'mmprompt'
    return Path(os.environ.get('MMPROMPT_CACHE') or default).expanduser()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
