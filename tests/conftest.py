"""What holds for every test."""

import logging
import sys

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def own_default_scope():
    """A default scope set by one test (every Runner sets one) never reaches the next."""
    with DefaultScope.overwrite_default_scope('mmprompt'):
        yield


@pytest.fixture(autouse=True)
def open_streams():
    """A logger made while one test's output was caught is heard in the next, too."""
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler and handler.stream.closed:
                handler.stream = sys.stdout
