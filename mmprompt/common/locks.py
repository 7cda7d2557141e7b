"""Locks between processes, which end with the process that holds them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from mmprompt.common.files import cache_root

try:
    import fcntl
except ImportError:  # Windows: one process at a time there
    fcntl = None


@contextmanager
def process_lock(name: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a name, among processes with the same `cache_root`.

    Args:
        name: any text.
        wait: until the lock is free; else the block runs at once and is told.

    Yields:
        Whether the lock is held.
    """
    if fcntl is None:
        yield True
        return
    folder = cache_root() / 'locks'
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / hashlib.sha256(name.encode()).hexdigest()[:32]).open('w') as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # Closing alone would leave it to data workers, which share the open file.
            fcntl.flock(stream, fcntl.LOCK_UN)
