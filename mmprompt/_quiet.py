"""Importing without the remarks of libraries on parts of theirs that nobody here uses."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and whatever the block prints to standard output; errors are untouched.

    The file descriptor is turned away, not ``sys.stdout``: loggers that are made during an import
    keep that object, and must be heard afterwards.
    """
    sys.stdout.flush()
    output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        sys.stdout.flush()
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)
