"""What command lines and notebooks call."""

from mmprompt.apis.inferencer import Inferencer

__all__ = ['Inferencer']
