"""Models that the methods freeze."""

from mmprompt.foundation import sam, seem

__all__ = ['sam', 'seem']
