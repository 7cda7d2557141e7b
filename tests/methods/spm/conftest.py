"""What the tests of SPM share."""

import logging

import pytest

from mmprompt.common import pretrained
from mmprompt.methods.spm import backbone


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    """The warnings of the wrapper and of the loader of its weights."""
    lines: list[str] = []

    def note(message: str, logger=None, level: int = logging.INFO) -> None:
        if level >= logging.WARNING:
            lines.append(message)

    for module in (backbone, pretrained):
        monkeypatch.setattr(module, 'print_log', note)
    return lines
