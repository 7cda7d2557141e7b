"""Models that the methods freeze."""

from mmprompt.foundation import seem

__all__ = ['seem']
