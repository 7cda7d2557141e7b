"""Models that the methods freeze, what describes classes and images, what proposes patches."""

from mmprompt.foundation import clip, patch_generators, sam, seem

__all__ = ['clip', 'patch_generators', 'sam', 'seem']
