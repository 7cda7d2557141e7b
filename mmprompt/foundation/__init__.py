"""Models that the methods freeze, and what proposes patches."""

from mmprompt.foundation import patch_generators, sam, seem

__all__ = ['patch_generators', 'sam', 'seem']
