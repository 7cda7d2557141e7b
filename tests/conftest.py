"""What holds for every test."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def own_default_scope():
    """A default scope set by one test (every Runner sets one) never reaches the next."""
    with DefaultScope.overwrite_default_scope('mmprompt'):
        yield
